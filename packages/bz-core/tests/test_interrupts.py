"""Signals to a real process or its group: the batch ends, the state is saved, nothing is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from bz.testing import RecordingPlugin, tiny_spec, train
from bz.training.checkpoint import find_checkpoint

if TYPE_CHECKING:
    from bz import TrainingContext

SCRIPT = """
import sys, time
from pathlib import Path
import torch
from torch.utils.data import DataLoader, Dataset
from bz import Trainer, Plugin

WORKERS, RESUME, SLOW_HOOK = int(sys.argv[1]), sys.argv[2] or None, sys.argv[3]

class Data(Dataset):
    def __len__(self): return 40
    def __getitem__(self, index): return torch.rand(4) + index, torch.tensor(index % 3)

def wait(hook):
    def method(self, context):
        if not RESUME and context.global_step >= 12:
            Path("ready").touch()
            time.sleep(0.05)
    return method

class Slow(Plugin):
    def load_checkpoint(self, context):
        print("resumed at", context.epoch, context.batch_index, flush=True)
    def end_training_session(self, context):
        print("ended", context.status, flush=True)

setattr(Slow, SLOW_HOOK, wait(SLOW_HOOK))
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3))
trainer = Trainer()
trainer.add_plugin(Slow())
loader = DataLoader(Data(), 4, shuffle=True, num_workers=WORKERS)
result = trainer.train(model, torch.optim.Adam(model.parameters()), torch.nn.CrossEntropyLoss(), loader, loader,
                       epochs=4, device="cpu", run_dir="run", resume=RESUME)
print([row["training_loss"] for row in result.history], model(torch.ones(4)).sum().item(), flush=True)
"""


def start(folder: Path, workers: int, resume: str = "", hook: str = "end_training_batch") -> subprocess.Popen[str]:
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, "-W", "ignore", "script.py", str(workers), resume, hook]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_until_ready(process: subprocess.Popen[str], folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not (folder / "ready").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def members_of_group(group: int) -> list[int]:
    """Return the living processes of a process group."""
    stats = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    fields = [(stat.split()[0], stat.rpartition(")")[2].split()) for stat in stats]
    return [int(process) for process, rest in fields if int(rest[2]) == group and rest[0] != "Z"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """What the script prints last, by number of workers, when nobody interrupts it."""
    lines: dict[int, str] = {}
    for workers in (0, 2):
        process = start(tmp_path_factory.mktemp("whole"), workers, hook="load_checkpoint")
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        lines[workers] = output.splitlines()[-1]
    return lines


class Case(NamedTuple):
    """A signal, to whom, when, and the exit code that it leads to."""

    number: signal.Signals
    hook: str
    code: int
    workers: int = 0
    to_group: bool = False


CASES = [
    Case(signal.SIGINT, "end_training_batch", -signal.SIGINT),
    Case(signal.SIGUSR1, "end_training_batch", 138),
    Case(signal.SIGTERM, "end_validation_batch", 143),
    Case(signal.SIGTERM, "save_checkpoint", 143),
    Case(signal.SIGINT, "end_training_batch", -signal.SIGINT, workers=2, to_group=True),
    Case(signal.SIGTERM, "end_training_batch", 143, workers=2, to_group=True),
    Case(signal.SIGTERM, "end_validation_batch", 143, workers=2, to_group=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_signal_saves_the_state_and_resume_is_bit_equal(
    case: Case, tmp_path: Path, uninterrupted: dict[int, str]
) -> None:
    process = start(tmp_path, case.workers, hook=case.hook)
    wait_until_ready(process, tmp_path)
    (os.killpg if case.to_group else os.kill)(process.pid, case.number)
    output, errors = process.communicate(timeout=60)
    assert output.splitlines() == ["ended interrupted"], errors
    assert process.returncode == case.code, errors
    assert members_of_group(process.pid) == []
    assert find_checkpoint(tmp_path / "run").state["bz"]["global_step"] >= 12
    resumed = start(tmp_path, case.workers, resume="run", hook=case.hook)
    output, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, errors
    assert output.splitlines()[-1] == uninterrupted[case.workers]


def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    code = SCRIPT.replace("time.sleep(0.05)", "time.sleep(60)")
    (tmp_path / "script.py").write_text(textwrap.dedent(code))
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "script.py", "0", "", "end_training_batch"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until_ready(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    train(tiny_spec(), epochs=1)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before


def test_handler_of_the_script_stays_in_place() -> None:
    def signal_myself(hook: str, _context: TrainingContext) -> None:
        if hook == "start_epoch":
            os.kill(os.getpid(), signal.SIGUSR1)

    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: seen.append(number))
    try:
        result = train(tiny_spec(), RecordingPlugin(signal_myself), epochs=1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (seen, result.status) == ([signal.SIGUSR1], "completed")


@pytest.mark.parametrize(("hook", "epoch"), [("end_epoch", 2), ("end_training_session", 2)])
def test_signal_when_everything_is_done_makes_no_interrupted_run(hook: str, epoch: int) -> None:
    def signal_myself(event: str, context: TrainingContext) -> None:
        if event == hook and context.epoch == epoch:
            os.kill(os.getpid(), signal.SIGTERM)

    result = train(tiny_spec(), RecordingPlugin(signal_myself), epochs=2)
    assert (result.status, result.signal, result.epochs) == ("completed", None, 2)


def test_training_outside_the_main_thread_leaves_signals_alone() -> None:
    statuses: list[str] = []
    thread = threading.Thread(target=lambda: statuses.append(train(tiny_spec(), epochs=1).status))
    thread.start()
    thread.join()
    assert statuses == ["completed"]
