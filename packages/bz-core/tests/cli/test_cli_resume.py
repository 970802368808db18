"""Runs that were killed, interrupted or finished go on: real processes, really killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bz.training.checkpoint import read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

    StartBz = Callable[..., "subprocess.CompletedProcess[str]"]

SCRIPT = """
import os, signal, time
import torch
from bz import TrainingSpec
from torch.utils.data import DataLoader, TensorDataset

def build(hyperparameters):
    data = TensorDataset(torch.randn(12, 4), torch.randint(0, 3, (12,)))
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return TrainingSpec(
        model=model,
        optimizer=optimizer,
        loss_fn=torch.nn.CrossEntropyLoss(),
        training_loader=DataLoader(data, 4, shuffle=True),
        validation_loader=DataLoader(data, 6),
        lr_scheduler=torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
    )

def end_training_batch(context):
    kill_at = os.environ.get("KILL_AT")
    if kill_at == str(context.global_step):
        os.kill(os.getpid(), signal.Signals[os.environ.get("KILL_WITH", "SIGKILL")])
    if os.environ.get("LOOK"):
        with open("look", "a") as file:
            file.write(str((context.run_dir / "run.lock").exists()) + " ")
    if os.environ.get("SLOW"):
        time.sleep(float(os.environ["SLOW"]))
"""


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script of three steps an epoch, which draws everything at random; no plugin disturbs the text."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    path = Path("train.py")
    path.write_text(SCRIPT)
    return path


def record_of(name: str) -> Any:
    return json.loads(Path("runs", name, "run.json").read_text())


def final_state(folder: Path) -> dict[str, Any]:
    """Return the newest state of a run, without what is about the process."""
    newest = max((folder / "state").glob("epoch_*.pth"), key=lambda path: int(path.stem.rpartition("_")[2]))
    state = read_checkpoint(newest)
    for key in ("settings", "provenance", "extra", "seconds"):
        del state["bz"][key]
    return state


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_equal(first, second)
    else:
        assert one == other


def kill_at(bz_process: StartBz, step: int, *arguments: str) -> None:
    done = bz_process("train", "--no-plugins", *arguments, KILL_AT=str(step))
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_killed_run_goes_on_bit_equal_by_the_bare_option(bz_process: StartBz, bz: Callable[..., Result]) -> None:
    options = ["--epochs", "4", "--seed", "5"]
    assert bz("train", "--no-plugins", *options, "--name", "whole").exit_code == 0
    kill_at(bz_process, 5, *options, "--name", "a")
    assert "crashed" in bz("runs", "list").stdout
    assert list(Path("runs/a").glob("run.lock"))
    kill_at(bz_process, 10, "--resume")
    result = bz("train", "--resume")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert re.match(
        r"Resuming run a after epoch 3 \(step 9\)(; at least 1 step done after that is repeated)?\.$", lines[1]
    )
    assert lines[2].startswith("Completed: 4 epochs in")
    assert_equal(final_state(Path("runs/a")), final_state(Path("runs/whole")))
    record = record_of("a")
    assert record["status"] == "completed"
    assert [session["status"] for session in record["sessions"]] == ["crashed", "crashed", "completed"]
    assert record["sessions"][2]["resumed_from"] == "runs/a/state/epoch_3_step_9.pth"
    assert record["created_at"] == record["sessions"][0]["started_at"]
    log = Path("runs/a/bz.log").read_text()
    assert log.count("with seed 5") == 3


def test_run_killed_before_its_first_checkpoint_begins_again_with_its_seed(
    bz_process: StartBz, bz: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at(bz_process, 2, "--name", "a", "--epochs", "2")
    seed = record_of("a")["seed"]
    monkeypatch.setenv("LOOK", "1")
    result = bz("train", "--resume", "a")
    monkeypatch.delenv("LOOK")
    assert Path("look").read_text() == "True " * 6  # the new folder is locked, not only the one set aside
    assert (
        "Run a has no checkpoint yet: it begins again with the first epoch. What it had written is in runs/a.1."
    ) in result.stdout.splitlines()
    assert (record_of("a")["seed"], record_of("a")["status"]) == (seed, "completed")
    assert bz("train", "--no-plugins", "--name", "b", "--epochs", "2", "--seed", str(seed)).exit_code == 0
    assert_equal(final_state(Path("runs/a")), final_state(Path("runs/b")))
    assert not list(Path("runs").rglob("run.lock"))


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_interrupted_run_says_how_to_resume(number: str, code: int, bz_process: StartBz) -> None:
    done = bz_process("train", "--no-plugins", "--name", "a", "--epochs", "2", KILL_AT="2", KILL_WITH=number)
    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == "Resume with: bz train --resume a"
    again = bz_process("train", "--resume")
    assert again.returncode == 0
    assert again.stdout.splitlines()[1] == "Resuming run a from epoch 1, batch 3 (step 2)."
    assert record_of("a")["epochs"] == 2


def test_command_to_resume_names_a_folder_of_runs_that_is_not_the_default(bz_process: StartBz) -> None:
    where = ["--runs-dir", "my runs"]
    done = bz_process("train", "--no-plugins", "--name", "a", *where, KILL_AT="2", KILL_WITH="SIGINT")
    assert done.stdout.splitlines()[-1] == "Resume with: bz train --resume a --runs-dir 'my runs'"
    assert bz_process("train", "--resume", *where).returncode == 0


def test_steps_after_the_checkpoint_are_counted(bz_process: StartBz) -> None:
    done = bz_process("train", "--no-plugins", "--name", "a", "--epochs", "9", KILL_AT="8", SLOW="0.6")
    assert done.returncode == -signal.SIGKILL
    again = bz_process("train", "--resume", "a")
    assert "Resuming run a after epoch 2 (step 6); at least 1 step done after that is repeated." in again.stdout
    assert record_of("a")["sessions"][0]["seconds"] > 1
    assert record_of("a")["seconds"] > record_of("a")["sessions"][1]["seconds"] + 1


def test_second_process_in_one_folder_is_refused(bz_process: StartBz, bz: Callable[..., Result]) -> None:
    command = [sys.executable, "-m", "bz", "train", "--no-plugins", "--name", "a", "--epochs", "1000"]
    process = subprocess.Popen(command, env={**os.environ, "SLOW": "0.2"}, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: bool(list(Path("runs").glob("a/state/*.pth"))))
        assert bz("runs", "list").stdout.splitlines()[1].split()[:2] == ["a", "running"]
        refused = bz_process("train", "--resume", "a")
        assert refused.returncode == 2
        assert refused.stderr.startswith(f"The run folder runs/a is in use by process {process.pid} on ")
        assert bz_process("train", "--resume").stderr.startswith("`--resume`: There is no unfinished run in runs")
        assert "is in use by process" in bz("train", "--name", "a", "--fresh").stderr
    finally:
        process.kill()
        process.wait()
    assert bz("train", "--resume", "a", "--epochs", "1").exit_code == 0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_differs_is_shown(bz: Callable[..., Result], script: Path) -> None:
    Path("bz.json").write_text('{"hyperparameters": {"lr": 0.1, "api_key": "canary"}, "training": {"seed": 1}}')
    assert bz("train", "--no-plugins", "--name", "a").exit_code == 0
    record = record_of("a")
    record["versions"] |= {"torch": "2.0.0", "plugins": {"gone": "0.1.0"}}
    Path("runs/a/run.json").write_text(json.dumps(record))
    Path("bz.json").write_text('{"hyperparameters": {"lr": 0.2, "api_key": "other"}, "training": {"seed": 2}}')
    script.write_text(SCRIPT + "\n# changed")
    result = bz("train", "--resume", "a", "--epochs", "2")
    shown = [line for line in result.stdout.splitlines() if line.startswith("Differs from before: ")]
    old, new = record["script_sha256"][:8], record_of("a")["script_sha256"][:8]
    assert [line.removeprefix("Differs from before: ") for line in shown] == [
        "training.epochs: null → 2.",
        "training.seed: 1 → 2.",
        "hyperparameters.lr: 0.1 → 0.2.",
        f"version of torch: 2.0.0 → {torch.__version__}.",
        "version of plugin gone: 0.1.0 → none.",
        f"content of train.py: SHA-256 {old} → {new}.",
    ]
    assert "`training.seed` 2 has no effect: a resumed run keeps its seed, 1." in result.stderr
    assert record_of("a")["seed"] == 1
    assert "canary" not in Path("runs/a/run.json").read_text()


def test_completed_run_has_nothing_left(bz: Callable[..., Result]) -> None:
    assert bz("train", "--no-plugins", "--name", "a", "--epochs", "2").exit_code == 0
    before = Path("runs/a/run.json").read_bytes()
    result = bz("train", "--resume", "a")
    assert (result.exit_code, result.stdout) == (
        0,
        "Run a has done all 2 epochs; give --epochs a larger number to go on.\n",
    )
    assert Path("runs/a/run.json").read_bytes() == before
    assert json.loads(bz("train", "--resume", "a", "--json").stdout)["status"] == "completed"
    longer = bz("train", "--resume", "a", "--epochs", "3")
    assert longer.stdout.splitlines()[1:3] == [
        "Resuming run a after epoch 2 (step 6).",
        "Differs from before: training.epochs: 2 → 3.",
    ]


def test_options_of_the_first_command_hold_unless_they_are_given_anew(
    bz: Callable[..., Result], tmp_path: Path
) -> None:
    settings = tmp_path / "other.json"
    settings.write_text('{"hyperparameters": {"lr": 0.3}}')
    Path("train.py").rename("mine.py")
    first = ["--epochs", "2", "--set", "hyperparameters.a=1", "--set", "hyperparameters.password=canary"]
    assert bz("train", "mine.py", "--config", str(settings), "--no-plugins", "--name", "a", *first).exit_code == 0
    result = bz("train", "--resume", "a", "--epochs", "3", "--set", "hyperparameters.a=2")
    assert result.exit_code == 0
    assert "`--set hyperparameters.password` of the run is a secret, which is not kept" in result.stderr
    record = record_of("a")
    assert record["settings"]["hyperparameters"] == {"lr": 0.3, "a": 2}
    assert record["options"]["set"] == ["hyperparameters.a=2", "training.epochs=3"]
    assert record["options"]["plugins"]["none"] is True
    assert Path(record["script"]).name == "mine.py"


def test_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(bz: Callable[..., Result]) -> None:
    assert bz("train", "--no-plugins", "--name", "a", "--epochs", "3", "--seed", "1").exit_code == 0
    newest = Path("runs/a/state/epoch_3_step_9.pth")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    result = bz("train", "--resume", "a")
    assert "The checkpoint runs/a/state/epoch_3_step_9.pth is damaged" in result.stderr
    assert "Resuming run a after epoch 2 (step 6); 3 steps done after that are repeated." in result.stdout
    assert newest.with_suffix(".damaged").exists()
    assert bz("train", "--no-plugins", "--name", "b", "--epochs", "3", "--seed", "1").exit_code == 0
    assert_equal(final_state(Path("runs/a")), final_state(Path("runs/b")))


def test_all_damaged_says_how_to_begin_afresh(bz: Callable[..., Result]) -> None:
    assert bz("train", "--no-plugins", "--name", "a", "--epochs", "2").exit_code == 0
    for path in Path("runs/a/state").iterdir():
        path.write_bytes(b"")
    for _ in range(2):
        result = bz("train", "--resume", "a")
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].endswith("On the command line: bz train --fresh --name a")
    assert len(list(Path("runs/a/state").iterdir())) == 2
    assert bz("train", "--no-plugins", "--name", "a", "--fresh").exit_code == 0
    assert len(list(Path("runs/a.1/state").iterdir())) == 2
    assert record_of("a.1")["status"] == "completed"


def test_completed_run_without_checkpoints_cannot_go_on(bz: Callable[..., Result]) -> None:
    options = ["--no-plugins", "--set", "training.checkpoint_interval=0"]
    assert bz("train", *options, "--name", "a").exit_code == 0
    before = Path("runs/a/run.json").read_bytes()
    result = bz("train", "--resume", "a", "--epochs", "2")
    assert result.exit_code == 2
    assert result.stderr == (
        "`--resume`: runs/a has no checkpoint to go on from, as when `training.checkpoint_interval` is 0. "
        "To begin anew: bz train --fresh --name a\n"
    )
    assert [path.name for path in Path("runs").iterdir()] == ["a"]
    assert Path("runs/a/run.json").read_bytes() == before
    assert not Path("runs/a/run.lock").exists()


@pytest.mark.parametrize("wanted", [".", "..", "notes", "../work"])
def test_folder_that_is_no_run_is_left_alone(wanted: str, bz: Callable[..., Result]) -> None:
    Path("runs/notes").mkdir(parents=True)
    before = sorted(Path().rglob("*"))
    assert bz("train", "--resume", wanted).exit_code == 2
    assert sorted(Path().rglob("*")) == before


def test_fresh_with_a_new_name_just_begins(bz: Callable[..., Result]) -> None:
    assert bz("train", "--no-plugins", "--name", "a", "--fresh").exit_code == 0
    assert [path.name for path in Path("runs").iterdir()] == ["a"]


def test_resume_from_a_checkpoint_file_goes_another_way_in_the_same_folder(bz: Callable[..., Result]) -> None:
    assert bz("train", "--no-plugins", "--name", "a", "--epochs", "4").exit_code == 0
    result = bz("train", "--resume", "runs/a/state/epoch_3_step_9.pth")
    assert "Resuming run a after epoch 3 (step 9); 3 steps done after that are repeated." in result.stdout
    assert sorted(path.name for path in Path("runs/a/state").iterdir()) == [
        "epoch_3_step_9.pth",
        "epoch_4_step_12.pth",
        "epoch_4_step_12.superseded",
    ]


def test_resume_from_a_checkpoint_file_under_a_new_name_leaves_the_old_run_alone(bz: Callable[..., Result]) -> None:
    assert bz("train", "--no-plugins", "--name", "a", "--epochs", "2").exit_code == 0
    before = Path("runs/a/run.json").read_bytes()
    result = bz("train", "--resume", "runs/a/state/epoch_1_step_3.pth", "--name", "b")
    assert "Resuming from runs/a/state/epoch_1_step_3.pth, after epoch 1 (step 3)." in result.stdout
    assert Path("runs/a/run.json").read_bytes() == before
    assert_equal(final_state(Path("runs/a")), final_state(Path("runs/b")))
    assert record_of("b")["sessions"][0]["resumed_from"] == "runs/a/state/epoch_1_step_3.pth"


def test_checkpoint_outside_of_every_run_begins_a_new_one_with_its_seed(
    bz: Callable[..., Result], tmp_path: Path
) -> None:
    assert bz("train", "--no-plugins", "--name", "a").exit_code == 0
    copy = tmp_path / "copy.pth"
    copy.write_bytes(Path("runs/a/state/epoch_1_step_3.pth").read_bytes())
    assert bz("train", "--no-plugins", "--resume", str(copy), "--name", "b", "--epochs", "2").exit_code == 0
    assert record_of("b")["seed"] == record_of("a")["seed"]


def test_run_without_a_record_goes_on_with_what_its_checkpoint_knows(bz: Callable[..., Result]) -> None:
    assert bz("train", "--no-plugins", "--name", "a").exit_code == 0
    seed = record_of("a")["seed"]
    Path("runs/a/run.json").write_text("{")
    result = bz("train", "--resume", "a", "--epochs", "2", "--no-plugins")
    assert result.exit_code == 0
    assert "runs/a/run.json cannot be read; what the run was made with is taken from its checkpoint" in result.stderr
    assert "Differs from before: training.epochs: null → 2." in result.stdout
    assert (record_of("a")["seed"], record_of("a")["status"]) == (seed, "completed")


def test_resume_by_folder(bz: Callable[..., Result]) -> None:
    assert bz("train", "--no-plugins", "--name", "a", "--runs-dir", "elsewhere").exit_code == 0
    assert "Resuming run a after epoch 1" in bz("train", "--resume", "elsewhere/a", "--epochs", "2").stdout


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--resume"], "`--resume`: There is no unfinished run in runs: there is none at all. Go on with"),
        (["--resume", "aa"], "`--resume`: There is no run 'aa' in runs; there are none."),
        (["--resume", "../aa"], "`--resume`: '../aa' is no run folder and no checkpoint."),
        (["--resume", "a", "--fresh"], "`--fresh` and `--resume` contradict each other; give one of them."),
        (["--fresh"], "`--fresh` needs `--name`: a run without a name is always a new one."),
        (["--resume", "other.py"], "`--resume`: There is no unfinished run in runs"),
    ],
)
def test_wrong_use_is_one_sentence_and_writes_nothing(
    arguments: list[str], fault: str, bz: Callable[..., Result]
) -> None:
    result = bz("train", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(fault)
    assert not Path("runs").exists()


def test_name_with_resume_is_refused(bz: Callable[..., Result]) -> None:
    assert bz("train", "--no-plugins", "--name", "a").exit_code == 0
    result = bz("train", "--resume", "a", "--name", "b")
    assert (result.exit_code, result.stderr) == (2, "`--name` is for new runs; a resumed run keeps its name.\n")
    assert (
        "Did you mean 'a'?" in bz("train", "--resume", "aa").stderr
        or "the latest: a." in bz("train", "--resume", "zz").stderr
    )


def test_failed_run_goes_on_when_its_cause_is_repaired(bz: Callable[..., Result], script: Path) -> None:
    broken = """
    def end_epoch(context):
        context.model.register_forward_hook(lambda *_: 1 / 0)
    """
    script.write_text(SCRIPT + dedent(broken))
    assert bz("train", "--no-plugins", "--name", "a", "--epochs", "2").exit_code == 1
    script.write_text(SCRIPT)
    result = bz("train", "--resume")
    assert result.exit_code == 0
    assert "Resuming run a after epoch 1 (step 3)." in result.stdout
    assert record_of("a")["sessions"][0]["status"] == "failed"
