from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bz.runs import RunFolder, describe_run

if TYPE_CHECKING:
    from typer.testing import Result


@pytest.fixture
def runs() -> None:
    """Two runs, the second failed."""
    for name, minute in (("first", 1), ("second", 2)):
        folder = RunFolder.create(Path("runs"), name)
        settings = {"training": {"epochs": 3}}
        folder.start(describe_run(script=Path("train.py"), settings=settings, seed=1, plugins={}))
        folder.update(created_at=f"2026-11-23T10:0{minute}:00+00:00")
    RunFolder(Path("runs/first")).finish(
        "completed",
        epochs=3,
        seconds=75.2,
        training_loss=0.11,
        validation_loss=0.123456,
        training_metrics={"accuracy": 0.99},
        validation_metrics={"accuracy": 0.98763},
    )
    RunFolder(Path("runs/second")).finish("failed", epochs=0, seconds=0.5, validation_loss=None)


@pytest.mark.usefixtures("runs")
def test_list_has_the_newest_first(bz: Callable[..., Result]) -> None:
    assert bz("runs", "list").stdout == (
        "NAME    STATUS     EPOCHS  VAL. LOSS  METRICS          TIME\n"
        "second  failed     0       -          -                0.5 s\n"
        "first   completed  3       0.1235     accuracy 0.9876  1 min 15 s\n"
    )


@pytest.mark.usefixtures("runs")
def test_list_as_json(bz: Callable[..., Result]) -> None:
    second, first = json.loads(bz("runs", "list", "--json").stdout)
    assert (second["name"], second["status"], second["validation_loss"]) == ("second", "failed", None)
    assert first["validation_metrics"] == {"accuracy": 0.98763}


@pytest.mark.usefixtures("runs")
def test_show_names_a_run_or_the_latest(bz: Callable[..., Result]) -> None:
    shown = bz("runs", "show", "first").stdout
    assert shown.startswith("Run first in runs/first: completed\n")
    assert "settings.training.epochs     3\n" in shown
    assert json.loads(bz("runs", "show", "latest", "--json").stdout)["name"] == "second"


@pytest.mark.usefixtures("runs")
def test_show_of_an_unknown_run_is_one_sentence(bz: Callable[..., Result]) -> None:
    result = bz("runs", "show", "frist")
    assert result.exit_code == 2
    assert result.stderr.endswith("Did you mean 'first'?\n")


def test_no_runs(bz: Callable[..., Result]) -> None:
    assert bz("runs", "list").stdout == "There are no runs in runs. Make one with: bz train\n"
    assert bz("runs", "list", "--json").stdout == "[]\n"
    assert bz("runs", "show", "latest").exit_code == 2


def test_damaged_record_is_listed_as_unreadable(bz: Callable[..., Result]) -> None:
    Path("runs/x").mkdir(parents=True)
    Path("runs/x/run.json").write_text("{")
    assert bz("runs", "list").stdout.splitlines()[1].split() == ["x", "unreadable", "-", "-", "-", "-"]
