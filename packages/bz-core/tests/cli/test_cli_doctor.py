"""`bz doctor`, on projects that work and on projects with one fault each."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bz.cli.proof import _choose_moments
from bz.cli.trace import Step, digest, first_difference, first_other_step
from bz.runs import RunFolder, describe_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

SCRIPT = """
import random, time
import torch
from bz import TrainingSpec
from torch.utils.data import DataLoader, Dataset

class Samples(Dataset):
    def __init__(self):
        self.own = random.Random(7)
        self.labels = torch.randint(0, 3, (12,))

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.randn(4) + NOISE, self.labels[index]

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3))
        self.register_buffer("seen", torch.zeros(()))
        self.calls = 0

    def forward(self, inputs):
        self.calls += self.training
        FORWARD
        return self.layers(inputs) * SCALE

def build(hyperparameters):
    model = Model()
    return TrainingSpec(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01),
        loss_fn=torch.nn.CrossEntropyLoss(),
        training_loader=DataLoader(Samples(), 4, shuffle=True),
    )
"""


@pytest.fixture(autouse=True)
def _own_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])


def write_script(noise: str = "0", scale: str = "1", forward: str = "pass") -> None:
    text = SCRIPT.replace("NOISE", noise).replace("SCALE", scale).replace("FORWARD", forward)
    Path("train.py").write_text(text)


def findings(result: Result) -> dict[str, dict[str, str]]:
    return {finding["subject"]: finding for finding in json.loads(result.stdout)}


def test_doctor_shows_a_table_and_changes_nothing(bz: Callable[..., Result]) -> None:
    write_script()
    result = bz("doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["CHECKED", "FOUND"]
    assert {line.split()[0] for line in lines[1:]} <= {"ok", "warn"}
    assert [line.split()[1] for line in lines[1:5]] == ["bz", "python", "system", "cores"]
    assert f"torch {torch.__version__}." in result.stdout
    assert "There is no settings file; the defaults are fine." in result.stdout
    assert [path.name for path in Path().iterdir()] == ["train.py"]


def test_wrong_settings_fail(bz: Callable[..., Result]) -> None:
    Path("bz.json").write_text('{"training": {"epoch": 3}, "plugins": {"tensorbord": {}}}')
    result = bz("doctor", "--json")
    assert result.exit_code == 1
    faults = [one["text"] for one in json.loads(result.stdout) if one["state"] == "fail"]
    assert len(faults) == 2
    assert faults[0].startswith("bz.json: unknown key `training.epoch`")
    assert "tensorbord" in faults[1]


def test_plugin_that_cannot_be_imported_fails_if_it_is_named_and_warns_if_not(
    bz: Callable[..., Result], install: Callable[..., None]
) -> None:
    install("bz-plugin-mail", {"mail": "mail_module:MailPlugin"}, "raise OSError('broken')")
    result = bz("doctor", "--json")
    assert (result.exit_code, findings(result)["plugin mail"]["state"]) == (0, "warn")
    Path("bz.json").write_text('{"plugins": {"mail": {}}}')
    result = bz("doctor", "--json")
    assert (result.exit_code, findings(result)["plugin mail"]["state"]) == (1, "fail")
    assert "OSError: broken" in findings(result)["plugin mail"]["text"]


def test_disk_is_measured_against_the_newest_checkpoint(bz: Callable[..., Result]) -> None:
    state = Path("runs/a/state")
    state.mkdir(parents=True)
    (state / "epoch_1_step_1.pth").write_bytes(b"0" * 2_000_000)
    text = findings(bz("doctor", "--json"))["disk"]["text"]
    assert text.endswith("are free; a run needs 6 MB for 3 checkpoints of 2 MB (as in the run a).")
    too_large = shutil.disk_usage(".").free + 10**12
    with (state / "epoch_1_step_2.pth").open("wb") as file:
        file.truncate(too_large)
    result = bz("doctor", "--json")
    assert (result.exit_code, findings(result)["disk"]["state"]) == (1, "fail")


def test_disk_is_measured_against_an_estimate_for_a_script(bz: Callable[..., Result]) -> None:
    write_script()
    text = findings(bz("doctor", "train.py", "--json"))["disk"]["text"]
    parameters = 4 * (4 * 8 + 8 + 8 * 3 + 3)
    assert f"3 checkpoints of {3 * parameters + 4} bytes (an estimate from the parameters and the optimizer" in text
    assert bz("doctor", "gone.py").exit_code == 1


def test_unfinished_runs_are_named(bz: Callable[..., Result]) -> None:
    run = RunFolder.create(Path("runs"), "a")
    run.start(describe_run(script=Path("train.py"), settings={}, seed=1, plugins={}))
    assert findings(bz("doctor", "--json"))["runs"]["text"] == (
        "1 run can go on with `bz train --resume NAME`; the newest: a (crashed)."
    )


@pytest.mark.parametrize("option", ["--kills", "--epochs", "--max-steps"])
def test_options_of_the_rehearsal_are_checked(option: str, bz: Callable[..., Result]) -> None:
    result = bz("doctor", option, "2")
    assert (result.exit_code, result.stderr) == (2, f"`{option}` has an effect only with `--resume`.\n")
    result = bz("doctor", "--resume", option, "0")
    assert (result.exit_code, result.stderr) == (2, f"`{option}` must be at least 1, got 0.\n")


def rehearse(bz: Callable[..., Result], *arguments: str) -> tuple[Result, dict[str, Any]]:
    """Return the result of a rehearsal of two epochs, which leaves nothing behind, and its verdict."""
    before = sorted(Path().rglob("*"))
    result = bz("doctor", "--resume", "--epochs", "2", "--json", *arguments)
    assert sorted(Path().rglob("*")) == before
    return result, json.loads(result.stdout)


def test_project_that_resumes_exactly_is_equal_to_the_bit(bz: Callable[..., Result]) -> None:
    write_script()
    result, verdict = rehearse(bz, "--kills", "2")
    assert (result.exit_code, verdict["is_equal"], verdict["is_deterministic"]) == (0, True, True)
    assert (verdict["steps"], verdict["is_cut"], len(verdict["kills"])) == (6, False, 2)
    assert verdict["difference"] is None
    assert "Run 2, undisturbed: equal to the first." in result.stderr


def test_rehearsal_ends_at_the_limit_of_steps_and_says_so(bz: Callable[..., Result]) -> None:
    write_script()
    result = bz("doctor", "--resume", "--max-steps", "2", "--kills", "9")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Run 1, undisturbed: 2 steps with seed ")
    assert lines[2:] == [
        "Run 3, killed after step 1 and resumed each time.",
        "Equal to the bit: weights, optimizer, scheduler, random states, each batch and each loss.",
        "The runs ended after step 2 (--max-steps); what comes later was no part of it.",
    ]


def test_dataset_with_random_numbers_of_its_own_is_named(bz: Callable[..., Result]) -> None:
    write_script(noise="self.own.random()")
    # The last kill is inside the second epoch; in the first, a new generator is as good as the old one.
    result, verdict = rehearse(bz, "--kills", "3")
    assert (result.exit_code, verdict["is_equal"], verdict["is_deterministic"]) == (1, False, True)
    assert "after the kill at step" in verdict["difference"]
    assert ": the batch differs. At the end model_state_dict/layers.0.weight differs." in verdict["difference"]
    assert "a dataset, sampler or collate function with a random generator" in verdict["meaning"]


def test_model_that_keeps_something_outside_of_its_state_is_named(bz: Callable[..., Result]) -> None:
    write_script(scale="(1 + self.calls)")
    result, verdict = rehearse(bz, "--kills", "2")
    assert result.exit_code == 1
    assert ": the loss differs. At the end model_state_dict/layers.0.weight differs." in verdict["difference"]
    assert "something that is in no state_dict" in verdict["meaning"]


def test_difference_that_no_loss_shows_is_named(bz: Callable[..., Result]) -> None:
    write_script(forward="self.seen.fill_(self.calls)")
    result, verdict = rehearse(bz, "--kills", "2")
    assert result.exit_code == 1
    assert verdict["difference"] == "model_state_dict/seen differs at the end, and no loss before."


def test_script_that_is_not_deterministic_is_told_apart(bz: Callable[..., Result]) -> None:
    write_script(noise="time.time_ns() % 1000 / 1000")
    result = bz("doctor", "--resume")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1] == "Run 2, undisturbed: it differs."
    assert "The script is not deterministic, so no resume can be exact. From step 1 (epoch 1, batch 1) on" in (
        result.stdout
    )
    assert "Run 3" not in result.stdout


def test_script_that_fails_is_shown(bz: Callable[..., Result]) -> None:
    write_script(forward="raise ValueError('boom')")
    result = bz("doctor", "--resume")
    assert result.exit_code == 1
    assert result.stderr.startswith("The rehearsal 'reference' ended with exit code 1:\n")
    assert "ValueError: boom" in result.stderr


def test_digest_tells_every_kind_of_batch_apart() -> None:
    batches: list[Any] = [
        torch.zeros(2),
        torch.zeros(2, dtype=torch.float64),
        torch.zeros(1, 2),
        -torch.zeros(2),
        torch.zeros(2, dtype=torch.bfloat16),
        {"a": torch.zeros(2)},
        (torch.zeros(2), "a"),
        (torch.zeros(2), 1),
    ]
    assert len({digest(batch) for batch in batches}) == len(batches)
    assert digest({"a": [torch.ones(3).bool(), None]}) == digest({"a": (torch.ones(3).bool(), None)})


def test_first_other_step_is_the_first_in_time() -> None:
    reference = [Step(1, number, number, "a", "b") for number in (1, 2, 3)]
    again = [reference[0], reference[1], reference[1]._replace(attempt=1), reference[2]._replace(loss="x", attempt=1)]
    assert first_other_step(again, reference) == (again[3], reference[2])
    assert first_other_step(again[:3], reference) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model_state_dict/w", torch.tensor([-0.0])),
        ("bz/history/0/loss", 0.5),
        ("bz/random/torch", torch.tensor([2])),
        ("epoch", 2),
        ("bz/history", []),
    ],
)
def test_first_difference_is_named_by_its_path(path: str, value: Any) -> None:
    def state() -> dict[str, Any]:
        return {
            "epoch": 1,
            "bz": {
                "settings": {},
                "history": [{"loss": float("nan")}],
                "random": {"torch": torch.tensor([1])},
                "plugins": {"trace_writer": {}},
            },
            "model_state_dict": {"w": torch.tensor([0.0])},
        }

    changed = state()
    assert first_difference(changed, state()) is None
    changed["bz"]["settings"] = {"other": 1}
    changed["bz"]["random"]["numpy"] = {}
    changed["bz"]["plugins"]["logging"] = {"written_at": 1}
    assert first_difference(changed, state()) is None
    owner: Any = changed
    *above, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    for key in above:
        owner = owner[key]
    owner[last] = value
    assert first_difference(changed, state()) == path


@pytest.mark.parametrize(("length", "kills", "number"), [(2, 3, 1), (6, 3, 3), (100, 7, 7), (4, 3, 3)])
def test_kills_are_spread_over_the_run(length: int, kills: int, number: int) -> None:
    for _ in range(50):
        moments = _choose_moments(length, kills)
        assert len(set(moments)) == number
        assert sorted(moments) == list(moments)
        assert moments[0] >= 1
        assert moments[-1] == length - 1
