"""Validations inside an epoch, epochs without one, several optimizers, and runs that end by a limit."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from bz.spec import StepResult
from bz.testing import RecordingPlugin, tiny_spec, train
from bz_plugin_logging import LoggingPlugin


def log(run_dir: Path, losses: Mapping[int, float], *others: object, **options: Any) -> list[dict[str, Any]]:
    """Train three batches an epoch, with validation losses by step, and return the events without times."""

    def validation_step(context: Any, batch: Any) -> StepResult:
        return StepResult(torch.tensor(losses[context.global_step], dtype=torch.float64))

    plugin = LoggingPlugin(format=("json", "csv"))
    train(tiny_spec(validation_step=validation_step), plugin, *others, run_dir=run_dir, strict_plugins=True, **options)
    events = json.loads((run_dir / "training_log.json").read_text(encoding="utf-8"))
    times = {"timestamp", "duration_seconds"}
    return [{name: value for name, value in event.items() if name not in times} for event in events]


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "training_log.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_validation_inside_an_epoch_has_an_event(tmp_path: Path) -> None:
    events = log(tmp_path, {2: 0.5, 4: 0.3, 6: 0.4}, validation_interval="2 steps")
    validation = {"event": "validation_complete", "validation_metrics": {}, "learning_rate": 0.1}
    assert [event["event"] for event in events] == [
        "training_start", "validation_complete", "epoch_complete", "validation_complete", "validation_complete",
        "epoch_complete", "training_complete",
    ]  # fmt: skip
    assert events[1] == {**validation, "epoch": 1, "global_step": 2, "validation_loss": 0.5}
    assert events[3] == {**validation, "epoch": 2, "global_step": 4, "validation_loss": 0.3}
    assert (events[2]["validation_loss"], events[5]["validation_loss"]) == (0.5, 0.4)
    assert {"best_epoch": 2, "best_global_step": 4, "best_validation_loss": 0.3}.items() <= events[-1].items()


def test_validation_at_the_end_of_an_epoch_is_part_of_the_epoch(tmp_path: Path) -> None:
    events = log(tmp_path, {3: 0.5, 6: 0.4})
    assert [event["event"] for event in events[1:-1]] == ["epoch_complete"] * 2
    assert "best_global_step" not in events[-1]


def test_table_has_a_row_for_each_validation_and_columns_in_the_order_of_other_runs(tmp_path: Path) -> None:
    log(tmp_path, {2: 0.5, 4: 0.3, 6: 0.4}, validation_interval="2 steps")
    found = rows(tmp_path)
    assert list(found[0]) == [
        "timestamp", "epoch", "training_loss", "validation_loss", "learning_rate", "global_step", "duration_seconds",
    ]  # fmt: skip
    assert [(row["epoch"], row["global_step"], row["validation_loss"]) for row in found] == [
        ("1", "2", "0.5"), ("1", "3", "0.5"), ("2", "4", "0.3"), ("2", "6", "0.4"), ("2", "6", "0.4"),
    ]  # fmt: skip
    assert [bool(row["training_loss"]) for row in found] == [False, True, False, False, True]


def test_validation_of_the_untrained_model_is_logged_and_never_the_best(tmp_path: Path) -> None:
    events = log(tmp_path, {0: 0.1, 3: 0.5, 6: 0.4}, validate_first=True)
    assert (events[1]["event"], events[1]["epoch"], events[1]["global_step"]) == ("validation_complete", 0, 0)
    assert {"best_epoch": 2, "best_validation_loss": 0.4}.items() <= events[-1].items()


def test_epochs_without_validation_say_none_and_do_not_compare_their_training_loss(tmp_path: Path) -> None:
    events = log(tmp_path, {6: 100.0}, validation_interval="2 epochs", epochs=3)
    assert ["validation_loss" in event for event in events[1:-1]] == [False, True, False]
    assert {"best_epoch": 2, "best_validation_loss": 100.0}.items() <= events[-1].items()


def test_run_that_ends_by_a_limit_says_which(tmp_path: Path) -> None:
    events = log(tmp_path, {3: 0.5, 5: 0.4}, max_steps=5, epochs=None)
    end = {"total_epochs": 2, "status": "completed", "reason": "max_steps 5 reached", "global_step": 5}
    assert end.items() <= events[-1].items()


def test_each_optimizer_has_its_learning_rate(tmp_path: Path) -> None:
    spec = tiny_spec()
    parts = {"generator": spec.model[0], "critic": spec.model[-1]}  # type: ignore[index]  # it is a Sequential
    spec.optimizer = {
        name: torch.optim.SGD(part.parameters(), lr=rate)
        for (name, part), rate in zip(parts.items(), (0.5, 0.25), strict=True)
    }

    def step(context: Any, batch: Any) -> torch.Tensor:
        loss: torch.Tensor = torch.nn.functional.cross_entropy(context.model(batch[0]), batch[1])
        context.backward(loss)
        for optimizer in context.optimizer.values():
            context.step_optimizer(optimizer)
            optimizer.zero_grad()
        return loss

    spec.training_step = step
    train(spec, LoggingPlugin(format=("json", "csv")), run_dir=tmp_path, strict_plugins=True)
    epoch = json.loads((tmp_path / "training_log.json").read_text(encoding="utf-8"))[1]
    assert epoch["learning_rate"] == 0.5
    assert epoch["learning_rates"] == {"generator": 0.5, "critic": 0.25}
    assert rows(tmp_path)[0]["learning_rates.critic"] == "0.25"


@pytest.mark.parametrize("hook", ["end_training_batch", "end_validation_batch", "end_epoch"])
@pytest.mark.parametrize("step", [2, 3, 4, 6])
@pytest.mark.parametrize("options", [{}, {"validate_first": True}, {"accumulate_batches": 2}], ids=repr)
def test_stopped_run_goes_on_with_its_log(tmp_path: Path, hook: str, step: int, options: dict[str, Any]) -> None:
    def stop(fired: str, context: Any) -> None:
        if fired == hook and context.global_step == step:
            context.request_stop("enough", "batch")

    losses = {index: 1 / (1 + index % 4) for index in range(13)}
    options = {"validation_interval": "2 steps", "epochs": 3, **options}
    whole = log(tmp_path / "whole", losses, **options)
    log(tmp_path / "a", losses, RecordingPlugin(stop), **options)
    assert log(tmp_path / "a", losses, resume=tmp_path / "a", **options) == whole
    tables = [
        [{name: value for name, value in row.items() if name not in {"timestamp", "duration_seconds"}} for row in table]
        for table in (rows(tmp_path / "a"), rows(tmp_path / "whole"))
    ]
    assert tables[0] == tables[1]
    assert list(rows(tmp_path / "a")[0]) == list(rows(tmp_path / "whole")[0])
