"""Validations inside an epoch, epochs without one, windows of batches, and runs that end by a limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_runs import names, scripted_run

from bz.spec import StepResult
from bz.testing import RecordingPlugin, tiny_spec, train
from bz.training.checkpoint import read_checkpoint
from bz_plugin_checkpoint import SmartCheckpointPlugin

STEPS = {1: 0.9, 2: 0.5, 4: 0.6, 6: 0.4}
"""Validation losses of two epochs of three steps, validated every two of them."""


def run(run_dir: Path, losses: Sequence[float] | Mapping[int, float], *others: object, **settings: Any) -> Any:
    """Run with these settings of the plugin; `options` are those of the training."""
    options = {"validation_interval": "2 steps", "epochs": 2, **settings.pop("options", {})}
    return scripted_run(losses, SmartCheckpointPlugin(**settings), *others, run_dir=run_dir, **options)


def written(run_dir: Path, losses: Sequence[float] | Mapping[int, float], **settings: Any) -> list[str]:
    """Run, and return the names of the plugin's files in the order in which they were written."""
    paths: list[str] = []

    def note(hook: str, context: Any) -> None:
        if hook == "save_checkpoint" and context.checkpoint_path.parent.name == "checkpoints":
            paths.append(context.checkpoint_path.stem.removeprefix("checkpoint_"))

    run(run_dir, losses, RecordingPlugin(note), **settings)
    return paths


def best(run_dir: Path) -> tuple[int, int, float]:
    """Return epoch, step and validation loss of `best.pth`."""
    state = read_checkpoint(run_dir / "checkpoints" / "best.pth")
    return state["epoch"], state["bz"]["global_step"], state["validation_loss"]


@pytest.mark.parametrize(
    ("losses", "settings", "expected"),
    [
        ({2: 0.5, 4: 0.6, 6: 0.4}, {}, ["1@2", "2"]),
        ({2: 0.5, 4: 0.3, 6: 0.4}, {}, ["1@2", "2@4"]),
        ({2: 0.5, 4: 0.3, 6: 0.4}, {"max_checkpoints": 1}, ["2@4"]),
        ({2: 0.5, 4: 0.3, 6: 0.4}, {"max_checkpoints": 0, "keep_best": 2}, ["2@4", "2"]),
        ({2: float("nan"), 4: 0.6, 6: float("inf")}, {}, ["2@4"]),
        ({2: 0.5, 4: 0.6, 6: 0.7}, {"every": "2 epochs"}, ["2"]),
        ({2: 0.5, 4: 0.3, 6: 0.4}, {"save_best_only": False}, ["1", "2"]),
        ({2: 0.5, 4: 0.3, 6: 0.4}, {"monitor": "training_loss", "mode": "max", "max_checkpoints": 1}, None),
    ],
    ids=repr,
)
def test_each_validation_is_compared(
    tmp_path: Path, losses: dict[int, float], settings: dict[str, Any], expected: list[str] | None
) -> None:
    run(tmp_path, losses, **settings)
    found = names(tmp_path / "checkpoints")
    assert found == expected or (expected is None and not any("@" in name for name in found))


def test_best_is_the_state_that_was_validated(tmp_path: Path) -> None:
    run(tmp_path, {2: 0.5, 4: 0.3, 6: 0.4}, keep_last=1)
    assert best(tmp_path) == (2, 4, 0.3)
    state = read_checkpoint(tmp_path / "checkpoints" / "best.pth")
    assert state["bz"]["extra"] == {"monitor": "validation_loss", "value": 0.3}


def test_end_of_an_epoch_has_no_value_of_an_earlier_validation(tmp_path: Path) -> None:
    run(tmp_path, {2: 0.5, 4: 0.3}, max_checkpoints=0, keep_best=3, keep_last=1, options={"max_steps": 5})
    assert names(tmp_path / "checkpoints") == ["1@2", "2@4", "2"]
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pth")["bz"]["extra"]["value"] is None


def test_turn_and_validation_of_one_step_are_one_file(tmp_path: Path) -> None:
    files = written(tmp_path, {2: 0.5, 4: 0.3, 6: 0.4}, every="2 steps")
    assert files == ["epoch_1_step_2", "epoch_2_step_4", "epoch_2_loss_0.4000"]
    assert best(tmp_path) == (2, 4, 0.3)


def test_epochs_without_validation_are_neither_compared_nor_a_reason_for_the_training_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"validation_interval": "2 epochs", "epochs": 5}
    assert written(tmp_path, [9, 0.6, 9, 0.5, 9], options=options) == ["epoch_2_loss_0.6000", "epoch_4_loss_0.5000"]
    assert best(tmp_path)[0] == 4
    assert caplog.messages == []


def test_turns_in_epochs_without_validation_are_saved_by_the_rules_that_do_not_compare(tmp_path: Path) -> None:
    options = {"validation_interval": "2 epochs", "epochs": 3}
    run(tmp_path, [9, 0.6, 9], max_checkpoints=0, keep_best=1, keep_last=2, options=options)
    assert names(tmp_path / "checkpoints") == ["2", "3"]
    assert best(tmp_path)[0] == 2


@pytest.mark.parametrize("options", [{"limit_validation_batches": 0}, {"validation_interval": 0}], ids=repr)
def test_training_loss_stands_in_for_a_validation_that_is_switched_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    run(tmp_path, [9, 9], options={"validation_interval": 1, **options})
    assert "the one with the lowest training loss" in caplog.text
    assert read_checkpoint(tmp_path / "checkpoints" / "best.pth")["bz"]["extra"]["monitor"] == "training_loss"


def test_validation_of_the_untrained_model_is_not_saved(tmp_path: Path) -> None:
    options = {"validate_first": True, "validation_interval": 1}
    assert written(tmp_path, {0: 0.1, 3: 0.6, 6: 0.5}, options=options) == [
        "epoch_1_loss_0.6000",
        "epoch_2_loss_0.5000",
    ]


def test_metric_is_compared_at_each_validation(tmp_path: Path) -> None:
    class Shown:
        value = 0.0

        def update(self, preds: Any, target: Any) -> None:
            self.value = preds if isinstance(preds, float) else self.value

        def compute(self) -> float:
            return self.value

        def reset(self) -> None:
            self.value = 0.0

    def step(context: Any, batch: Any) -> StepResult:
        score = {2: 0.2, 4: 0.9, 6: 0.5}[context.global_step]
        return StepResult(torch.tensor(0.5), score, score)

    spec = tiny_spec(metrics={"accuracy": Shown()}, validation_step=step)
    plugin = SmartCheckpointPlugin(monitor="validation_accuracy", max_checkpoints=1)
    train(spec, plugin, run_dir=tmp_path, strict_plugins=True, validation_interval="2 steps")
    assert names(tmp_path / "checkpoints") == ["2@4"]


@pytest.mark.parametrize("every", ["1 step", "0.000000001 s"])
def test_window_of_batches_is_saved_once(tmp_path: Path, every: str) -> None:
    settings: dict[str, Any] = {"every": every, "save_best_only": False, "max_checkpoints": 9}
    options = {"accumulate_batches": 2, "validation_interval": 1}
    files = written(tmp_path, [0.6, 0.5], options=options, **settings)
    assert len(set(files)) == len(files)
    assert [name for name in files if "loss" in name] == ["epoch_1_loss_0.6000", "epoch_2_loss_0.5000"]
    assert {"epoch_1_step_1", "epoch_2_step_3"} <= set(files)


def test_value_of_a_step_outlives_a_turn_in_the_window_after_it(tmp_path: Path) -> None:
    options = {"accumulate_batches": 2, "validation_interval": "1 step"}
    losses = {1: 0.1, 2: 0.6, 3: 0.5, 4: 0.7}
    run(tmp_path, losses, every="0.000000001 s", max_checkpoints=9, options=options)
    assert best(tmp_path) == (1, 1, 0.1)


@pytest.mark.parametrize("max_steps", [5, 6])
def test_last_step_of_a_run_with_a_limit_is_saved_at_the_end_of_its_epoch(tmp_path: Path, max_steps: int) -> None:
    options = {"max_steps": max_steps, "validation_interval": 1, "epochs": None}
    files = written(tmp_path, [0.6, 0.5], every="1 step", options=options)
    assert files[-2:] == [f"epoch_2_step_{max_steps - 1}", "epoch_2_loss_0.5000"]


def test_several_optimizers_are_saved(tmp_path: Path) -> None:
    spec = tiny_spec()
    first, last = spec.model[0], spec.model[-1]  # type: ignore[index]  # it is a Sequential
    optimizers = {name: torch.optim.SGD(part.parameters(), lr=0.1) for name, part in (("a", first), ("b", last))}

    def step(context: Any, batch: Any) -> torch.Tensor:
        loss: torch.Tensor = torch.nn.functional.cross_entropy(context.model(batch[0]), batch[1])
        context.backward(loss)
        for optimizer in context.optimizer.values():
            context.step_optimizer(optimizer)
            optimizer.zero_grad()
        return loss

    spec.optimizer, spec.training_step = optimizers, step
    train(spec, SmartCheckpointPlugin(), run_dir=tmp_path, strict_plugins=True)
    state = read_checkpoint(tmp_path / "checkpoints" / "best.pth")
    assert sorted(state["optimizer_state_dict"]) == ["a", "b"]


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("hook", ["end_training_batch", "end_validation_batch"])
def test_folder_after_a_stop_is_that_of_an_undisturbed_run(tmp_path: Path, step: int, hook: str) -> None:
    losses = {2: 0.5, 4: 0.3, 6: 0.2}
    settings: dict[str, Any] = {"max_checkpoints": 2, "keep_last": 1}
    run(tmp_path / "undisturbed", losses, **settings)

    def stop(fired: str, context: Any) -> None:
        if fired == hook and context.global_step == step:
            context.request_stop("enough", "batch")

    run(tmp_path / "stopped", losses, RecordingPlugin(stop), **settings)
    run(tmp_path / "stopped", losses, **settings, options={"resume": tmp_path / "stopped"})
    left = [
        {path.name: read_checkpoint(path)["bz"]["global_step"] for path in (tmp_path / name / "checkpoints").iterdir()}
        for name in ("stopped", "undisturbed")
    ]
    assert left[0] == left[1]
