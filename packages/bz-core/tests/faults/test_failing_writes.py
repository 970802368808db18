"""A disk that refuses: one line with the path, the training goes on, and what was on disk stays whole."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from bz.testing import RecordingPlugin, tiny_spec, train
from bz.training.checkpoint import find_checkpoint, read_checkpoint
from faults.disk import FailAt, FailDeletes, Operation, watched

if TYPE_CHECKING:
    from bz import TrainingContext

NOBODY = 65534
LINE = "Cannot write the checkpoint "


def checkpoints(run_dir: Path) -> list[str]:
    """Return the names of all files in the folder of checkpoints, each of which must be whole."""
    paths = sorted((run_dir / "state").iterdir())
    for path in paths:
        read_checkpoint(path)
    return [path.name for path in paths]


def weights(run_dir: Path) -> list[object]:
    return [tensor.tolist() for tensor in find_checkpoint(run_dir).state["model_state_dict"].values()]


def size_of_a_checkpoint(run_dir: Path) -> int:
    """Return the size in bytes of one of `tiny_spec`."""
    train(tiny_spec(), epochs=1, run_dir=run_dir)
    size = (run_dir / "state" / "epoch_1_step_3.pth").stat().st_size
    shutil.rmtree(run_dir)
    return size


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def at_epoch(number: int, action: object) -> RecordingPlugin:
    """Return a plugin that does it when an epoch begins."""

    def on_event(hook: str, context: TrainingContext) -> None:
        if hook == "start_epoch" and context.epoch == number:
            assert callable(action)
            action()

    return RecordingPlugin(on_event)


def fail_at(number: int, run_dir: Path) -> Operation | None:
    """Train three epochs, with the n-th change of a file refused; check what is left, and return the change."""
    fault = FailAt(number, errno.ENOSPC)
    with watched(run_dir / "state", fault):
        result = train(tiny_spec(), epochs=3, run_dir=run_dir)
    assert (result.status, result.epochs) == ("completed", 3)
    is_last_missing = any("epoch_3" in sentence for sentence in result.missing_files)
    assert len(result.missing_files) == is_last_missing
    assert find_checkpoint(run_dir).state["epoch"] >= 3 - is_last_missing
    assert len(checkpoints(run_dir)) <= 3
    return fault.failed


def test_every_change_of_a_file_may_be_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    refused: list[Operation] = []
    for number in itertools.count(1):
        caplog.clear()
        operation = fail_at(number, tmp_path / str(number))
        if operation is None:
            break
        refused.append(operation)
        assert len(caplog.messages) == 1
        assert (LINE in caplog.text) == (operation.name != "unlink")
        assert "No space left on device" in caplog.text
        assert str(tmp_path / str(number) / "state") in caplog.text
    # The folder, then three files with their writes; the third save deletes the first file.
    names = [operation.name for operation in refused]
    assert names.count("write") >= 9
    assert [name for name in names if name != "write"] == [
        *["mkdir", "open", "fsync", "replace", "fsync_folder"],
        *["open", "fsync", "replace", "fsync_folder"],
        *["open", "fsync", "replace", "fsync_folder", "unlink"],
    ]


def test_any_file_size_limit_leaves_no_part_of_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    size, name = size_of_a_checkpoint(tmp_path / "whole"), "epoch_1_step_3.pth"
    for limit in [1000, *range(4000, size, 4000), size - 74, size - 1]:
        run_dir = tmp_path / str(limit)
        caplog.clear()
        with file_size_limit(limit):
            result = train(tiny_spec(), epochs=1, run_dir=run_dir)
        assert result.status == "completed"
        assert [sentence.startswith(LINE) for sentence in result.missing_files] == [True]
        assert checkpoints(run_dir) == []
        assert caplog.messages == [
            f"Cannot write the checkpoint {run_dir / 'state' / name}: File too large. Training goes on."
        ]


def test_disk_with_room_again_is_retried_at_the_next_interval(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    fill = at_epoch(2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard)))
    clear = at_epoch(3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))
    result = train(tiny_spec(), fill, clear, epochs=3, run_dir=tmp_path)
    assert result.missing_files == ()
    assert checkpoints(tmp_path) == ["epoch_1_step_3.pth", "epoch_3_step_9.pth"]
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_run_whose_last_state_is_not_on_disk_says_so_and_goes_on_from_the_one_before(
    tmp_path: Path, *, is_async: bool
) -> None:
    path = tmp_path / "state" / "epoch_3_step_9.pth"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        while not (path.parent / "epoch_2_step_6.pth").exists():  # written by a thread
            time.sleep(0.01)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))

    try:
        result = train(tiny_spec(), at_epoch(3, fill), epochs=3, run_dir=tmp_path, async_checkpoint=is_async)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.missing_files == (f"Cannot write the checkpoint {path}: File too large.",)
    assert checkpoints(tmp_path) == ["epoch_1_step_3.pth", "epoch_2_step_6.pth"]
    train(tiny_spec(), epochs=3, run_dir=tmp_path, resume=tmp_path)
    whole = tmp_path / "whole"
    train(tiny_spec(), epochs=3, run_dir=whole)
    assert weights(tmp_path) == weights(whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    program = shutil.which("mount")
    if program is None or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mounted = subprocess.run(
        [program, "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_full_disk_leaves_earlier_checkpoints_and_is_used_again_once_there_is_room(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ballast = small_disk / "ballast"
    page = os.sysconf("SC_PAGE_SIZE")
    for pages in range(size_of_a_checkpoint(small_disk / "first") // page + 1):
        run_dir = small_disk / str(pages)

        def fill(pages: int = pages) -> None:
            free = os.statvfs(small_disk)
            ballast.write_bytes(b"\1" * (free.f_bavail * free.f_frsize - pages * page))

        caplog.clear()
        plugins = [at_epoch(2, fill), at_epoch(4, ballast.unlink)]
        result = train(tiny_spec(), *plugins, epochs=4, run_dir=run_dir)
        assert (result.status, result.missing_files) == ("completed", ())
        assert checkpoints(run_dir) == ["epoch_1_step_3.pth", "epoch_4_step_12.pth"]
        assert caplog.messages == [
            f"Cannot write the checkpoint {run_dir / 'state' / name}: No space left on device. Training goes on."
            for name in ("epoch_2_step_6.pth", "epoch_3_step_9.pth")
        ]
        shutil.rmtree(run_dir)


@pytest.fixture
def folder_of_nobody() -> Iterator[Path]:
    """A folder, and for root the rights of an ordinary user: root may write anywhere."""
    with tempfile.TemporaryDirectory() as name:
        user = os.geteuid()
        if user == 0:
            os.chown(name, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(user)


def test_lost_permission_is_reported_and_retried(folder_of_nobody: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_dir = folder_of_nobody / "run"
    state = run_dir / "state"
    plugins = [at_epoch(3, lambda: state.chmod(0o555)), at_epoch(5, lambda: state.chmod(0o755))]
    result = train(tiny_spec(), *plugins, epochs=5, run_dir=run_dir)
    assert (result.status, result.missing_files) == ("completed", ())
    assert checkpoints(run_dir) == ["epoch_2_step_6.pth", "epoch_5_step_15.pth"]
    assert caplog.messages == [
        f"Cannot write the checkpoint {state / name}: Permission denied. Training goes on."
        for name in ("epoch_3_step_9.pth", "epoch_4_step_12.pth")
    ]


def test_read_only_folder_trains_and_says_that_nothing_is_saved(
    folder_of_nobody: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder_of_nobody.chmod(0o555)
    result = train(tiny_spec(), epochs=2, run_dir=folder_of_nobody / "run")
    folder_of_nobody.chmod(0o755)
    assert (result.status, result.epochs, len(result.missing_files)) == ("completed", 2, 1)
    assert list(folder_of_nobody.iterdir()) == []
    assert caplog.messages[0] == f"{folder_of_nobody / 'run'} cannot be locked: Permission denied"
    assert [message.startswith(LINE) for message in caplog.messages[1:]] == [True, True]


def test_old_checkpoint_that_cannot_be_deleted_is_named_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with watched(tmp_path, FailDeletes()):
        result = train(tiny_spec(), epochs=3, run_dir=tmp_path)
    old = tmp_path / "state" / "epoch_1_step_3.pth"
    assert (result.status, result.missing_files) == ("completed", ())
    assert caplog.messages == [f"cannot delete the old checkpoint {old}: Permission denied"]
    assert len(checkpoints(tmp_path)) == 3


SCRIPT = """
import torch
from bz.testing import tiny_spec

def build():
    return tiny_spec()
"""


def test_command_whose_last_state_is_not_on_disk_ends_with_code_3(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    finished = subprocess.run(
        [sys.executable, "-m", "bz", "train", "--name", "full", "--epochs", "2", "--no-plugins"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY)),
    )
    assert finished.returncode == 3, finished.stderr
    path = Path("runs", "full", "state", "epoch_2_step_6.pth")
    assert f"{path}: File too large." in finished.stderr
    assert "Traceback" not in finished.stderr
    assert list((tmp_path / path).parent.iterdir()) == []


def test_plugin_asked_for_a_file_that_cannot_be_written_is_told_at_the_end(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")

    def ask(hook: str, context: TrainingContext) -> None:
        if hook == "end_epoch":
            context.save_checkpoint("blocked/mine.pth")

    result = train(tiny_spec(), RecordingPlugin(ask), epochs=1, run_dir=tmp_path)
    assert [sentence.startswith(f"{LINE}{blocked / 'mine.pth'}: ") for sentence in result.missing_files] == [True]
    assert torch.load(tmp_path / "state" / "epoch_1_step_3.pth", weights_only=True)["epoch"] == 1


def test_checkpoint_that_cannot_be_read_is_named_and_stays_what_it_is(
    folder_of_nobody: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tiny_spec(), epochs=2, run_dir=folder_of_nobody)
    newest = folder_of_nobody / "state" / "epoch_2_step_6.pth"
    newest.chmod(0)
    assert find_checkpoint(folder_of_nobody).path.name == "epoch_1_step_3.pth"
    assert caplog.messages == [f"Cannot read the checkpoint {newest}: Permission denied. Going back to the one before."]
    newest.chmod(0o600)
    assert find_checkpoint(folder_of_nobody).path == newest
