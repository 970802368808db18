"""A resumed run goes on with its log as if it had never been interrupted."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from bz import Trainer
from bz.plugins import Plugin
from bz_plugin_logging import LoggingPlugin

FORMATS: Final = ("json", "jsonl", "csv")


class Stop(Plugin):
    """Stops, or fails, after some batches of the run."""

    def __init__(self, step: int, *, fails: bool = False) -> None:
        self.step = step
        self.fails = fails

    def end_training_batch(self, context: Any) -> None:
        if context.global_step == self.step:
            context.request_stop("enough for now", when="batch")

    def training_step(self, context: Any, batch: Any) -> None:
        if self.fails and context.global_step == self.step - 1:
            raise ZeroDivisionError


def train(run_dir: Path, *plugins: Plugin, epochs: int = 4, resume: Path | None = None, interval: int = 1) -> None:
    """Train on five batches an epoch."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    data = torch.utils.data.TensorDataset(torch.randn(20, 3), torch.randint(2, (20,)))
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    trainer = Trainer()
    for plugin in plugins:
        trainer.add_plugin(plugin)
    trainer.train(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        torch.nn.CrossEntropyLoss(),
        loader,
        loader,
        epochs=epochs,
        run_dir=run_dir,
        resume=resume,
        device="cpu",
        checkpoint_interval=interval,
        hyperparameters={"lr": 0.1},
    )


def contents(run_dir: Path) -> list[list[dict[str, Any]]]:
    """Return what the three files hold, without what differs from run to run."""
    with (run_dir / "training_log.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = (run_dir / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    events = json.loads((run_dir / "training_log.json").read_text(encoding="utf-8"))
    times = {"timestamp", "duration_seconds"}
    return [
        [{name: value for name, value in event.items() if name not in times} for event in log]
        for log in (events, [json.loads(line) for line in lines], rows)
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    run_dir = tmp_path_factory.mktemp("uninterrupted")
    train(run_dir, LoggingPlugin(format=FORMATS))
    return contents(run_dir)


@pytest.mark.parametrize("step", [2, 5, 8, 13, 15])
def test_stopped_run_goes_on(tmp_path: Path, uninterrupted: list[list[dict[str, Any]]], step: int) -> None:
    train(tmp_path, LoggingPlugin(format=FORMATS), Stop(step))
    assert contents(tmp_path)[0][-1]["status"] == "stopped"
    train(tmp_path, LoggingPlugin(format=FORMATS), resume=tmp_path)
    assert contents(tmp_path) == uninterrupted
    logs = {path.name for path in tmp_path.iterdir() if "training_log" in path.name}
    assert logs == {f"training_log.{name}" for name in FORMATS}


def test_events_after_the_checkpoint_are_cut(tmp_path: Path, uninterrupted: list[list[dict[str, Any]]]) -> None:
    with pytest.raises(ZeroDivisionError):
        train(tmp_path, LoggingPlugin(format=FORMATS), Stop(17, fails=True), interval=2)
    assert [event.get("epoch") for event in contents(tmp_path)[0]] == [None, 1, 2, 3, None]
    train(tmp_path, LoggingPlugin(format=FORMATS), resume=tmp_path)
    assert contents(tmp_path) == uninterrupted


def test_finished_run_is_continued(tmp_path: Path, uninterrupted: list[list[dict[str, Any]]]) -> None:
    train(tmp_path, LoggingPlugin(format=FORMATS), epochs=2)
    train(tmp_path, LoggingPlugin(format=FORMATS), epochs=4, resume=tmp_path)
    assert contents(tmp_path) == uninterrupted


def test_time_of_both_parts_counts(tmp_path: Path) -> None:
    train(tmp_path, LoggingPlugin(), epochs=2)
    path = tmp_path / "training_log.json"
    first = json.loads(path.read_text(encoding="utf-8"))
    train(tmp_path, LoggingPlugin(), epochs=4, resume=tmp_path)
    events = json.loads(path.read_text(encoding="utf-8"))
    parts = sum(event["duration_seconds"] for event in events[1:-1])
    assert events[:3] == first[:3]
    assert events[-1]["duration_seconds"] > parts


def test_plugin_that_joins_at_a_resume_begins_there(tmp_path: Path) -> None:
    train(tmp_path, epochs=2)
    train(tmp_path, LoggingPlugin(), resume=tmp_path)
    events = json.loads((tmp_path / "training_log.json").read_text(encoding="utf-8"))
    assert [event.get("epoch", event["event"]) for event in events] == ["training_start", 3, 4, "training_complete"]


@pytest.mark.parametrize("damage", ["gone", "of another run", "damaged", "shortened"])
def test_log_that_is_not_that_of_the_run_begins_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, LoggingPlugin(format=FORMATS), epochs=2)
    for name in FORMATS:
        path = tmp_path / f"training_log.{name}"
        text = path.read_text(encoding="utf-8")
        if damage == "gone":
            path.unlink()
        elif damage == "of another run":
            path.write_text(text.replace('"timestamp": "2', '"timestamp": "1').replace("\n2", "\n1"), encoding="utf-8")
        else:
            path.write_text({"damaged": text[:200] + '\0"', "shortened": "[]" if name == "json" else ""}[damage])
    train(tmp_path, LoggingPlugin(format=FORMATS), resume=tmp_path)
    events, lines, rows = contents(tmp_path)
    assert [event.get("epoch") for event in events] == [None, 3, 4, None]
    assert lines == events
    assert [row["epoch"] for row in rows] == ["3", "4"]
    assert sum("it begins anew" in message for message in caplog.messages) == 3


def test_new_metric_after_a_resume_gets_a_column(tmp_path: Path) -> None:
    class Count:
        def update(self, preds: Any, target: Any) -> None: ...
        def reset(self) -> None: ...
        def compute(self) -> float:
            return 1.0

    def go(epochs: int, resume: Path | None, metrics: dict[str, Any]) -> None:
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        trainer = Trainer()
        trainer.add_plugin(LoggingPlugin(format="csv"))
        batches = [(torch.ones(2, 3), torch.ones(2, 1))]
        trainer.train(
            model,
            optimizer,
            torch.nn.MSELoss(),
            batches,
            epochs=epochs,
            run_dir=tmp_path,
            resume=resume,
            metrics=metrics,
        )

    go(2, None, {})
    go(4, tmp_path, {"count": Count()})
    with (tmp_path / "training_log.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["training_metrics.count"]) for row in rows] == [
        ("1", ""), ("2", ""), ("3", "1.0"), ("4", "1.0"),
    ]  # fmt: skip


def test_state_does_not_grow_with_the_log(tmp_path: Path) -> None:
    plugin = LoggingPlugin()
    train(tmp_path, plugin, epochs=2)
    short = plugin.state_dict()
    train(tmp_path / "b", plugin, epochs=40)
    assert len(json.dumps(plugin.state_dict())) < len(json.dumps(short)) + 20
