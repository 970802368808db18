"""Every file is whole and can be gone on from; what belongs to another future makes way."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_runs import names, scripted_run

from bz.testing import RecordingPlugin
from bz.training.checkpoint import read_checkpoint
from bz_plugin_checkpoint import SmartCheckpointPlugin

LOSSES = [0.9, 0.5, 0.7, 0.6, 0.4, 0.8]
GUIDE_KEYS = [
    "epoch", "hyperparameters", "model_state_dict", "optimizer_state_dict",
    "training_metrics", "validation_loss", "validation_metrics",
]  # fmt: skip


def weights(run_dir: Path, name: str) -> list[torch.Tensor]:
    return list(read_checkpoint(run_dir / "checkpoints" / name)["model_state_dict"].values())


def same_weights(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def run(run_dir: Path | None, losses: list[float] = LOSSES, resume: Path | None = None, **settings: Any) -> Any:
    return scripted_run(losses, SmartCheckpointPlugin(**settings), run_dir=run_dir, resume=resume)


def test_file_has_the_name_and_the_keys_of_the_guide_and_opens_without_bz(tmp_path: Path) -> None:
    run(tmp_path)
    path = tmp_path / "checkpoints" / "checkpoint_epoch_5_loss_0.4000.pth"
    state = torch.load(path, weights_only=True)
    assert sorted(state.keys() - {"bz"}) == GUIDE_KEYS
    assert (state["epoch"], state["validation_loss"], state["hyperparameters"]["lr"]) == (5, 0.4, 0.1)
    assert state["bz"]["extra"] == {"monitor": "validation_loss", "value": 0.4}


@pytest.mark.parametrize(
    "settings", [{"save_best_only": False, "every": "2 steps", "max_checkpoints": 99}, {}], ids=repr
)
def test_run_goes_on_from_any_file_to_the_same_weights(tmp_path: Path, settings: dict[str, Any]) -> None:
    settings["keep_last"] = 1
    _, spec = run(tmp_path / "whole", **settings)
    files = sorted(path.name for path in (tmp_path / "whole" / "checkpoints").glob("*.pth"))
    assert {"best.pth", "last.pth"} < set(files)
    for name in files:
        copy = tmp_path / name
        shutil.copytree(tmp_path / "whole", copy)
        _, resumed = run(copy, resume=copy / "checkpoints" / name, **settings)
        assert same_weights([*spec.model.parameters()], [*resumed.model.parameters()]), name
        assert {path.name for path in (copy / "checkpoints").iterdir()} >= set(files)


@pytest.mark.parametrize("run_dir", ["runs", None])
def test_folder_after_a_resume_is_that_of_an_undisturbed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_dir: str | None
) -> None:
    left = []
    for kind in ("undisturbed", "resumed"):
        here = tmp_path / kind
        here.mkdir()
        monkeypatch.chdir(here)
        folder = here / (run_dir or "") / "checkpoints"
        where = None if run_dir is None else Path(run_dir)
        scripted_run(LOSSES, SmartCheckpointPlugin(max_checkpoints=1), run_dir=where)
        if kind == "resumed":
            second = folder / "checkpoint_epoch_2_loss_0.5000.pth"
            shutil.rmtree(folder)
            scripted_run(LOSSES[:2], SmartCheckpointPlugin(max_checkpoints=1), run_dir=where)
            shutil.copy(second, here / "second.pth")
            shutil.rmtree(folder)
            scripted_run(LOSSES, SmartCheckpointPlugin(max_checkpoints=1), run_dir=where)
            assert not second.exists()
            scripted_run(LOSSES, SmartCheckpointPlugin(max_checkpoints=1), run_dir=where, resume=here / "second.pth")
        left.append({path.name: read_checkpoint(path)["epoch"] for path in folder.iterdir()})
    assert left[0] == left[1] == {"best.pth": 5, "last.pth": 5, "checkpoint_epoch_5_loss_0.4000.pth": 5}


def test_file_that_the_run_goes_on_from_is_not_deleted(tmp_path: Path) -> None:
    run(tmp_path, [0.9, 0.8], max_checkpoints=1)
    run(
        tmp_path,
        [0.9, 0.8, 0.7, 0.6],
        tmp_path / "checkpoints" / "checkpoint_epoch_2_loss_0.8000.pth",
        max_checkpoints=1,
    )
    assert names(tmp_path / "checkpoints") == ["2", "4"]


def test_file_behind_best_is_not_deleted_when_the_run_goes_on_from_best(tmp_path: Path) -> None:
    run(tmp_path, [0.9, 0.8], max_checkpoints=1)
    run(tmp_path, [0.9, 0.8, 0.7, 0.6], tmp_path / "checkpoints" / "best.pth", max_checkpoints=1)
    assert names(tmp_path / "checkpoints") == ["2", "4"]


def test_best_of_an_earlier_session_is_remembered(tmp_path: Path) -> None:
    run(tmp_path, [0.9, 0.3, 0.8], keep_last=1)
    run(tmp_path, [0.9, 0.3, 0.8, 0.5], tmp_path, keep_last=1)
    assert names(tmp_path / "checkpoints") == ["1", "2", "4"]
    assert read_checkpoint(tmp_path / "checkpoints" / "best.pth")["epoch"] == 2


def test_files_of_a_future_that_came_differently_make_way_once_it_is_passed(tmp_path: Path) -> None:
    first = [0.9, 0.5, 0.4, 0.3]
    run(tmp_path, first[:2])
    shutil.copy(tmp_path / "checkpoints" / "last.pth", tmp_path / "second.pth")
    shutil.rmtree(tmp_path / "checkpoints")
    run(tmp_path, first, max_checkpoints=5)
    stages = []
    spy = RecordingPlugin(
        lambda hook, _: stages.append(names(tmp_path / "checkpoints")) if hook == "start_epoch" else None
    )
    changed = [0.9, 0.5, 0.45, 0.6, 0.35, 0.34]
    scripted_run(changed, SmartCheckpointPlugin(), spy, run_dir=tmp_path, resume=tmp_path / "second.pth")
    assert stages == [["1", "2", "3", "4"], ["1", "2", "3", "3", "4"], ["1", "2", "3", "3", "4"], ["1", "2", "3", "5"]]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "best.pth",
        "checkpoint_epoch_1_loss_0.9000.pth",
        "checkpoint_epoch_2_loss_0.5000.pth",
        "checkpoint_epoch_3_loss_0.4500.pth",
        "checkpoint_epoch_5_loss_0.3500.pth",
        "checkpoint_epoch_6_loss_0.3400.pth",
        "last.pth",
    ]
    assert read_checkpoint(tmp_path / "checkpoints" / "best.pth")["epoch"] == 6


def test_files_outside_the_run_folder_that_the_run_did_not_write_are_left_alone(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    run(tmp_path / "one", [0.9, 0.8, 0.7], save_dir=shared)
    run(tmp_path / "two", [0.95], save_dir=shared)
    run(tmp_path / "two", [0.95, 0.85, 0.75, 0.65], tmp_path / "two", save_dir=shared)
    assert names(shared) == ["1", "1", "2", "2", "3", "3", "4"]


def test_files_that_a_person_deleted_are_forgotten(tmp_path: Path) -> None:
    run(tmp_path, [0.9, 0.3])
    for path in (tmp_path / "checkpoints").glob("*.pth"):
        path.unlink()
    run(tmp_path, [0.9, 0.3, 0.6, 0.7], tmp_path)
    assert names(tmp_path / "checkpoints") == ["3"]
    assert read_checkpoint(tmp_path / "checkpoints" / "best.pth")["epoch"] == 3


def test_values_of_another_monitor_are_not_compared(tmp_path: Path) -> None:
    run(tmp_path, [0.001, 0.002])
    scripted_run(
        [0.001, 0.002, 0.003], SmartCheckpointPlugin(monitor="training_loss"), run_dir=tmp_path, resume=tmp_path
    )
    assert names(tmp_path / "checkpoints") == ["1", "3"]
    assert read_checkpoint(tmp_path / "checkpoints" / "best.pth")["epoch"] == 3


def test_turn_that_waits_for_the_end_of_the_epoch_survives_a_stop_in_the_validation(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_best_only": False, "every": "3 steps"}
    stop = RecordingPlugin(
        lambda hook, context: context.request_stop("enough", "batch") if hook == "end_validation_batch" else None
    )
    scripted_run(LOSSES[:1], SmartCheckpointPlugin(**settings), stop, run_dir=tmp_path)
    assert names(tmp_path / "checkpoints") == []
    run(tmp_path, LOSSES[:1], tmp_path, **settings)
    assert names(tmp_path / "checkpoints") == ["1"]


def test_plugin_that_is_new_at_a_resume_leaves_what_it_finds(tmp_path: Path) -> None:
    scripted_run([0.9, 0.8], run_dir=tmp_path)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "checkpoint_epoch_1_loss_0.9000.pth").write_bytes(b"of another hand")
    run(tmp_path, [0.9, 0.8, 0.7, 0.6], tmp_path, max_checkpoints=1)
    assert names(folder) == ["1", "4"]


def test_what_a_kill_left_undone_is_done_when_the_run_goes_on(tmp_path: Path) -> None:
    run(tmp_path, [0.9, 0.5], max_checkpoints=1)
    folder = tmp_path / "checkpoints"
    second = folder / "checkpoint_epoch_2_loss_0.5000.pth"
    shutil.copy(second, tmp_path / "second.pth")
    shutil.rmtree(folder)
    run(tmp_path, [0.9], max_checkpoints=1)
    (tmp_path / "second.pth").rename(second)  # written, and killed before anything else was done
    run(tmp_path, [0.9, 0.5, 0.7], second, max_checkpoints=1)
    assert names(folder) == ["2"]
    assert [read_checkpoint(folder / name)["epoch"] for name in ("best.pth", "last.pth")] == [2, 2]


def test_best_that_a_later_one_replaced_is_the_one_to_beat_when_the_run_comes_there_again(tmp_path: Path) -> None:
    losses = [0.9, 0.5, 0.7, 0.6, 0.4]
    settings: dict[str, Any] = {"max_checkpoints": 1, "keep_last": 1}
    run(tmp_path, losses[:3], **settings)
    shutil.copy(tmp_path / "state" / "epoch_3_step_9.pth", tmp_path / "third.pth")
    run(tmp_path, losses, tmp_path, **settings)
    folder = tmp_path / "checkpoints"
    assert names(folder) == ["5"]
    seen = []

    def look(hook: str, _context: Any) -> None:
        if hook in {"load_checkpoint", "end_training_loop", "end_training_session"}:
            seen.append((names(folder), read_checkpoint(folder / "best.pth")["epoch"]))

    plugins = SmartCheckpointPlugin(**settings), RecordingPlugin(look)
    scripted_run(losses, *plugins, run_dir=tmp_path, resume=tmp_path / "third.pth")
    assert seen == [(["5"], 5), (["5"], 5), (["4", "5"], 5), (["5"], 5)]


def test_file_of_another_plugin_that_the_run_goes_on_from_is_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "checkpoint_epoch_2_loss_0.0000.pth"
    other = RecordingPlugin(lambda hook, context: context.save_checkpoint(path) if hook == "end_epoch" else None)
    scripted_run([0.9, 0.8], other, run_dir=tmp_path)
    run(tmp_path, [0.9, 0.8, 0.7, 0.6], path, max_checkpoints=1)
    assert names(tmp_path / "checkpoints") == ["2", "4"]
