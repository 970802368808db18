"""One process at a time works in a run folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from bz import ConfigError, TrainingContext
from bz.lock import LOCK_NAME, find_owner, hold
from bz.testing import RecordingPlugin, tiny_spec, train

HOLDER = """
import sys, time
from pathlib import Path
from bz.lock import hold
with hold(Path(sys.argv[1])) as lock:
    lock._next_note = 0
    lock.note(3, 931)
    print("held", flush=True)
    time.sleep(60)
"""


def start_holder(folder: Path) -> subprocess.Popen[str]:
    """Return a process that holds the folder by now."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_second_process_is_refused_and_told_who_has_the_folder(tmp_path: Path) -> None:
    process = start_holder(tmp_path)
    try:
        with pytest.raises(ConfigError) as caught, hold(tmp_path):
            pass
        assert str(caught.value).startswith(
            f"The run folder {tmp_path} is in use by process {process.pid} on {os.uname().nodename} since 20"
        )
        assert str(caught.value).endswith("; wait until that has ended, or take another.")
        owner = find_owner(tmp_path)
        assert owner is not None
        assert (owner.pid, owner.epoch, owner.global_step) == (process.pid, 3, 931)
        with pytest.raises(ConfigError, match=f"process {process.pid}"):
            train(tiny_spec(), run_dir=tmp_path)
    finally:
        end(process)


def test_folder_of_a_killed_owner_is_free_and_says_how_far_it_came(tmp_path: Path) -> None:
    end(start_holder(tmp_path))
    assert find_owner(tmp_path) is None
    with hold(tmp_path) as lock:
        assert lock.former is not None
        assert (lock.former.epoch, lock.former.global_step) == (3, 931)
    with hold(tmp_path) as lock:
        assert lock.former is None


def test_folder_that_was_given_back_is_as_before(tmp_path: Path) -> None:
    with hold(tmp_path / "new"):
        assert json.loads((tmp_path / "new" / LOCK_NAME).read_bytes())["pid"] == os.getpid()
    assert list((tmp_path / "new").iterdir()) == []


def test_same_thread_may_take_the_folder_again_and_another_may_not(tmp_path: Path) -> None:
    faults: list[str] = []

    def take() -> None:
        try:
            with hold(tmp_path):
                faults.append("taken")
        except ConfigError as error:
            faults.append(str(error))

    with hold(tmp_path):
        with hold(tmp_path):
            pass
        assert find_owner(tmp_path) is not None
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    fault = f"The run folder {tmp_path} is in use by another thread of this process; "
    assert faults == [fault + "wait until that has ended, or take another."]
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    assert faults[1:] == ["taken"]


def test_looking_at_a_folder_of_this_process_does_not_lose_the_lock(tmp_path: Path) -> None:
    with hold(tmp_path):
        assert find_owner(tmp_path) is not None
        code = "import sys\nfrom pathlib import Path\nfrom bz.lock import hold\nwith hold(Path(sys.argv[1])): pass"
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert f"in use by process {os.getpid()} on" in done.stderr


def test_folder_that_cannot_be_locked_is_used_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with hold(tmp_path / "file" / "run") as lock:
        lock.note(1, 1)
    assert caplog.messages == [f"{tmp_path}/file/run cannot be locked: Not a directory"]


CROWD = """
import os, sys, time
from pathlib import Path
from bz.errors import ConfigError
from bz.lock import hold
folder, turns = Path(sys.argv[1]), 0
while turns < 20:
    try:
        with hold(folder):
            os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
            time.sleep(0.01)
            assert (folder / "run.lock").exists()
            os.unlink(folder / "inside")
            turns += 1
    except ConfigError:
        pass
"""


def test_crowd_of_processes_is_let_in_one_at_a_time(tmp_path: Path) -> None:
    crowd = [subprocess.Popen([sys.executable, "-c", CROWD, str(tmp_path)]) for _ in range(4)]
    assert [process.wait(timeout=120) for process in crowd] == [0, 0, 0, 0]
    assert list(tmp_path.iterdir()) == []


def test_damaged_lock_file_of_a_dead_owner_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_bytes(b'{"pid": 3\0\xff')
    with hold(tmp_path) as lock:
        assert lock.former is None


def test_two_sessions_one_after_the_other_work(tmp_path: Path) -> None:
    train(tiny_spec(), epochs=1, run_dir=tmp_path)
    assert train(tiny_spec(), epochs=2, run_dir=tmp_path, resume=tmp_path).epochs == 2


def test_session_holds_its_folder_while_it_runs(tmp_path: Path) -> None:
    owners: list[object] = []

    def look(hook: str, _context: TrainingContext) -> None:
        if hook == "start_epoch":
            owners.append(find_owner(tmp_path))

    train(tiny_spec(), RecordingPlugin(look), epochs=1, run_dir=tmp_path)
    assert owners != [None]
    assert find_owner(tmp_path) is None


class Stuck(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        os.write(1, f"{os.getpid()}\n".encode())
        threading.Event().wait(30)
        return torch.zeros(1)


def test_stuck_worker_that_survives_its_trainer_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from test_lock import Stuck, hold\n"
        "from torch.utils.data import DataLoader\n"
        "with hold(Path(sys.argv[1])):\n"
        "    next(iter(DataLoader(Stuck(), num_workers=1)))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        with hold(tmp_path) as lock:
            assert lock.former is not None
            os.kill(worker, 0)
    finally:
        os.kill(worker, signal.SIGKILL)
        process.stdout.close()


def test_session_that_begins_before_the_checkpoints_in_its_folder_keeps_its_own(tmp_path: Path) -> None:
    def save(hook: str, context: TrainingContext) -> None:
        if hook == "end_epoch" and context.epoch == 1:
            context.save_checkpoint("one.pth")

    train(tiny_spec(), RecordingPlugin(save), epochs=5, run_dir=tmp_path)
    train(tiny_spec(), epochs=2, run_dir=tmp_path, resume=tmp_path / "one.pth")
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == [
        "epoch_2_step_6.pth",
        "epoch_4_step_12.superseded",
        "epoch_5_step_15.superseded",
    ]
    assert train(tiny_spec(), epochs=3, run_dir=tmp_path, resume=tmp_path).epochs == 3
