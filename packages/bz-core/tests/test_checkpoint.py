"""Checkpoint files: durable, verified, and never a wrong value."""

from __future__ import annotations

import errno
import random
import resource
from typing import TYPE_CHECKING

import pytest
import torch

from bz import CheckpointError
from bz.testing import RecordingPlugin, tiny_spec, train
from bz.training.checkpoint import RollingCheckpoints, find_checkpoint, read_checkpoint, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path
from typing import Any

STATE: dict[str, Any] = {"weights": torch.arange(1000, dtype=torch.float32), "epoch": 3, "name": "tiny"}


def test_written_state_is_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.pth"
    write_checkpoint(STATE, path)
    state = read_checkpoint(path)
    assert torch.equal(state["weights"], STATE["weights"])
    assert (state["epoch"], state["name"]) == (3, "tiny")
    assert [entry.name for entry in path.parent.iterdir()] == ["x.pth"]


def test_torch_reads_it_without_bz(tmp_path: Path) -> None:
    write_checkpoint(STATE, tmp_path / "x.pth")
    assert torch.load(tmp_path / "x.pth", weights_only=True)["epoch"] == 3
    assert torch.load(tmp_path / "x.pth", weights_only=True, mmap=True)["epoch"] == 3


def test_state_that_could_not_be_read_back_is_refused_with_its_place(tmp_path: Path) -> None:
    state = {"bz": {"lr_scheduler": {"functions": [len]}}}
    message = r"bz/lr_scheduler/functions/0, a builtins.builtin_function_or_method, could not be read back."
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(state, tmp_path / "x.pth")
    assert list(tmp_path.iterdir()) == []


def test_damaged_file_never_loads(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    write_checkpoint(STATE, path)
    whole = path.read_bytes()
    numbers = random.Random(0)
    for _ in range(500):
        damaged = bytearray(whole)
        place = numbers.randrange(len(whole))
        kind = numbers.choice(["truncate", "flip", "zero"])
        if kind == "truncate":
            del damaged[place:]
        elif kind == "flip":
            damaged[place] ^= 1 << numbers.randrange(8)
        else:
            damaged[place : place + 512] = bytes(len(damaged[place : place + 512]))
        if damaged == whole:
            continue
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"is damaged, or was not written by bz"):
            read_checkpoint(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Cannot read the checkpoint .*nothing.pth: No such file or directory."):
        read_checkpoint(tmp_path / "nothing.pth")


def test_failing_write_keeps_the_errno_and_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    write_checkpoint(STATE, path)
    former = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"Cannot write the checkpoint .*File too large") as caught:
            write_checkpoint(STATE, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EFBIG
    assert path.read_bytes() == former
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pth"]


def test_rolling_keeps_the_two_newest(tmp_path: Path) -> None:
    train(tiny_spec(), epochs=4, run_dir=tmp_path)
    names = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert names == ["epoch_3_step_9.pth", "epoch_4_step_12.pth"]


def test_interval_skips_epochs_and_the_last_is_always_there(tmp_path: Path) -> None:
    plugin = RecordingPlugin()
    train(tiny_spec(), plugin, epochs=5, run_dir=tmp_path, checkpoint_interval=2)
    assert plugin.events.count("save_checkpoint") == 3
    assert (tmp_path / "state" / "epoch_5_step_15.pth").exists()


def test_interval_zero_writes_nothing(tmp_path: Path) -> None:
    train(tiny_spec(), epochs=2, run_dir=tmp_path, checkpoint_interval=0)
    assert list(tmp_path.iterdir()) == []


def test_newest_damaged_is_set_aside_and_the_one_before_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tiny_spec(), epochs=2, run_dir=tmp_path)
    newest = tmp_path / "state" / "epoch_2_step_6.pth"
    newest.write_bytes(newest.read_bytes()[:-100])
    found = find_checkpoint(tmp_path)
    assert found.path.name == "epoch_1_step_3.pth"
    assert [error.path for error in found.skipped] == [newest]
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == [
        "epoch_1_step_3.pth",
        "epoch_2_step_6.damaged",
    ]
    assert caplog.messages == [
        f"The checkpoint {newest} is damaged, or was not written by bz. Going back to the one before."
    ]


def test_all_damaged_is_an_error_that_keeps_the_files(tmp_path: Path) -> None:
    train(tiny_spec(), epochs=2, run_dir=tmp_path)
    for path in (tmp_path / "state").iterdir():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"All checkpoints are damaged in .*; start afresh without resuming."):
        find_checkpoint(tmp_path)
    assert len(list((tmp_path / "state").iterdir())) == 2


def test_order_is_by_number_and_not_by_name(tmp_path: Path) -> None:
    rolling = RollingCheckpoints(tmp_path)
    for epoch in (9, 10):
        write_checkpoint({"epoch": epoch}, rolling.path_for(epoch, epoch * 3))
    assert rolling.newest().state == {"epoch": 10}


def test_unwritable_folder_is_reported_and_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    result = train(tiny_spec(), epochs=2, run_dir=tmp_path)
    assert (result.status, result.epochs) == ("completed", 2)
    assert len(result.missing_files) == 1
    assert result.missing_files[0].startswith("Cannot write the checkpoint ")
    assert [message.endswith("Training goes on.") for message in caplog.messages] == [True, True]
