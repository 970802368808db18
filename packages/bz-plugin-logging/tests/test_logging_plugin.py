"""What the log holds, in each of its forms and for each end of a run."""

from __future__ import annotations

import csv
import inspect
import json
import logging
import math
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from bz import Trainer
from bz.errors import ConfigError
from bz.plugins import LoggingPlugin as ResolvedPlugin
from bz.plugins import Plugin
from bz.plugins.settings import build_plugin
from bz_plugin_logging import LoggingPlugin
from bz_plugin_logging.plugin import LoggingConfig

README = Path(__file__).parents[1] / "README.md"


class Total:
    """A metric: the sum of the targets."""

    def __init__(self) -> None:
        self.total = 0.0

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        self.total += float(target.sum())

    def compute(self) -> float:
        return self.total

    def reset(self) -> None:
        self.total = 0.0


class LossFromList(torch.nn.Module):
    """A model whose loss is the batch itself, so that the log can be compared with literals."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + 0 * self.weight


def loss_of(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs + 0 * targets).sum()


def batches(*losses: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.tensor([loss]), torch.tensor([2.0])) for loss in losses]


def train(*plugins: Plugin, losses: tuple[float, ...] = (1.0, 2.0), **options: Any) -> None:
    model = LossFromList()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    trainer = Trainer()
    for plugin in plugins:
        trainer.add_plugin(plugin)
    trainer.train(model, optimizer, loss_of, batches(*losses), device="cpu", **options)


def read(path: str | Path) -> list[dict[str, Any]]:
    text = Path(path).read_text(encoding="utf-8")
    events: list[dict[str, Any]] = json.loads(text, parse_constant=pytest.fail)
    assert text == json.dumps(events, indent=2)
    return events


def without_times(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in event.items() if k not in {"timestamp", "duration_seconds"}} for event in events]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_log_is_that_of_the_guide() -> None:
    validation = batches(4.0, 5.0)
    train(
        LoggingPlugin("my_training_log.json"),
        epochs=2,
        validation_loader=validation,
        metrics={"total": Total()},
        hyperparameters={"lr": 0.5},
    )
    events = read("my_training_log.json")
    epoch = {
        "event": "epoch_complete",
        "training_loss": 1.5,
        "training_metrics": {"total": 4.0},
        "validation_loss": 4.5,
        "validation_metrics": {"total": 4.0},
        "learning_rate": 0.5,
    }
    assert without_times(events) == [
        {"event": "training_start", "hyperparameters": {"lr": 0.5}},
        {**epoch, "epoch": 1, "global_step": 2},
        {**epoch, "epoch": 2, "global_step": 4},
        {
            "event": "training_complete",
            "total_epochs": 2,
            "status": "completed",
            "best_epoch": 1,
            "best_validation_loss": 4.5,
            "global_step": 4,
        },
    ]
    assert [list(event)[:2] for event in events] == [["timestamp", "event"]] * 4
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?", event["timestamp"]) for event in events)
    assert all(0 < event["duration_seconds"] < 60 for event in events[1:])
    assert sorted(path.name for path in Path().iterdir()) == ["my_training_log.json"]


def test_log_without_validation_has_no_validation_keys() -> None:
    train(LoggingPlugin(log_file="logs/deep/log.json"), losses=(3.0,))
    start, epoch, end = read("logs/deep/log.json")
    assert start["hyperparameters"] == {}
    assert {"validation_loss", "validation_metrics"} & set(epoch) == set()
    assert epoch["training_metrics"] == {}
    assert end["best_training_loss"] == 3.0


class Reader(Plugin):
    """Reads the log after every epoch, behind the plugin."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def end_epoch(self, context: Any) -> None:
        self.counts.append(len(read("training_log.json")))


def test_log_is_whole_after_every_epoch() -> None:
    reader = Reader()
    train(LoggingPlugin(), reader, epochs=5)
    assert reader.counts == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have_are_null(loss: float) -> None:
    train(
        LoggingPlugin(format=["json", "jsonl", "csv"]),
        losses=(loss,),
        hyperparameters={"bound": loss},
        on_nonfinite="ignore",
    )
    start, epoch, _end = read("training_log.json")
    assert epoch["training_loss"] is None
    assert start["hyperparameters"] == {"bound": str(loss)}
    lines = Path("training_log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line, parse_constant=pytest.fail)["event"] for line in lines][1] == "epoch_complete"
    with Path("training_log.csv").open(encoding="utf-8", newline="") as file:
        assert [row["training_loss"] for row in csv.DictReader(file)] == [""]


def test_best_epoch_is_never_nan() -> None:
    train(LoggingPlugin(), losses=(math.nan,), on_nonfinite="ignore")
    assert "best_epoch" not in read("training_log.json")[-1]


def test_learning_rate_is_that_of_the_epoch() -> None:
    model = LossFromList()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    trainer = Trainer()
    trainer.add_plugin(LoggingPlugin())
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    trainer.train(model, optimizer, loss_of, batches(1.0), epochs=3, lr_scheduler=scheduler, device="cpu")
    assert [event["learning_rate"] for event in read("training_log.json")[1:-1]] == [1.0, 0.5, 0.25]


def test_lines_hold_the_events_of_the_list() -> None:
    train(LoggingPlugin(format=("json", "jsonl")), epochs=2, hyperparameters={"text": "a\nb\u2028c"})
    lines = Path("training_log.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == read("training_log.json")
    assert lines[-1] == ""


def test_table_has_a_row_for_each_epoch() -> None:
    train(LoggingPlugin("log.csv"), epochs=2, validation_loader=batches(4.0), metrics={"a,b": Total()})
    with Path("log.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == [
        "timestamp", "epoch", "training_loss", "training_metrics.a,b", "validation_loss", "validation_metrics.a,b",
        "learning_rate", "global_step", "duration_seconds",
    ]  # fmt: skip
    assert [row[1:-1] for row in rows] == [
        ["1", "1.5", "4.0", "4.0", "2.0", "0.5", "2"],
        ["2", "1.5", "4.0", "4.0", "2.0", "0.5", "4"],
    ]


@pytest.mark.parametrize(
    ("log_file", "formats", "files"),
    [
        ("training_log.json", None, ["training_log.json"]),
        ("log.CSV", None, ["log.CSV"]),
        ("log.jsonl", None, ["log.jsonl"]),
        ("log.txt", None, ["log.txt"]),
        ("log.json", "csv", ["log.csv"]),
        ("log.v1", "jsonl", ["log.v1"]),
        ("log.json", ["csv", "json", "csv"], ["log.csv", "log.json"]),
        ("log.v1", ["csv", "json"], ["log.v1.csv", "log.v1.json"]),
    ],
)
def test_files_follow_name_and_format(log_file: str, formats: Any, files: list[str]) -> None:
    train(LoggingPlugin(log_file, formats))
    assert sorted(path.name for path in Path().iterdir()) == files


class Ender(Plugin):
    """Ends the run in its second epoch, in one way or another."""

    def __init__(self, way: str) -> None:
        self.way = way

    def end_training_batch(self, context: Any) -> None:
        if context.epoch == 2 and self.way == "stop":
            context.request_stop("good enough")
        elif context.epoch == 2 and self.way == "interrupt":
            signal.raise_signal(signal.SIGINT)

    def training_step(self, context: Any, batch: Any) -> None:
        if context.epoch == 2 and self.way == "fail":
            raise ValueError("no such place: https://me:canary-1@host, canary-2")


@pytest.mark.parametrize(
    ("way", "raised", "expected"),
    [
        ("stop", None, {"total_epochs": 2, "status": "stopped", "reason": "good enough", "best_epoch": 1}),
        ("interrupt", KeyboardInterrupt, {"total_epochs": 2, "status": "interrupted", "reason": "SIGINT received"}),
        (
            "fail",
            ValueError,
            {
                "total_epochs": 2,
                "status": "failed",
                "error": "ValueError: no such place: https://me:**********@host, **********",
            },
        ),
    ],
)
def test_end_says_how_and_why(way: str, raised: type[BaseException] | None, expected: dict[str, Any]) -> None:
    plugins = (LoggingPlugin(), Ender(way))
    hyperparameters = {"api_key": "canary-2"}
    if raised:
        with pytest.raises(raised):
            train(*plugins, epochs=5, hyperparameters=hyperparameters)
    else:
        train(*plugins, epochs=5, hyperparameters=hyperparameters)
    events = read("training_log.json")
    assert expected.items() <= events[-1].items()
    assert [event["epoch"] for event in events[1:-1]] == ([1, 2] if way == "stop" else [1])
    assert "canary" not in Path("training_log.json").read_text(encoding="utf-8")


def test_new_plugin_replaces_the_log_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    train(LoggingPlugin(), epochs=3)
    assert caplog.messages == []
    train(LoggingPlugin(), epochs=1)
    assert [event["event"] for event in read("training_log.json")] == [
        "training_start", "epoch_complete", "training_complete",
    ]  # fmt: skip
    assert caplog.messages == [f"the log of an earlier run is replaced: {Path.cwd() / 'training_log.json'}"]


def test_plugin_that_sees_two_runs_logs_both(caplog: pytest.LogCaptureFixture) -> None:
    plugin = LoggingPlugin(format=["json", "csv"])
    train(plugin, epochs=2)
    train(plugin, epochs=1)
    assert [event.get("epoch", event["event"]) for event in read("training_log.json")] == [
        "training_start", 1, 2, "training_complete", "training_start", 1, "training_complete",
    ]  # fmt: skip
    assert len(Path("training_log.csv").read_text(encoding="utf-8").splitlines()) == 4
    assert caplog.messages == []


def test_relative_path_is_taken_from_the_run_folder(tmp_path: Path) -> None:
    train(LoggingPlugin("logs/log.json"), run_dir=tmp_path / "run")
    assert len(read(tmp_path / "run" / "logs" / "log.json")) == 3


def test_path_out_of_the_run_folder_is_reported_and_nothing_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(LoggingPlugin("../log.json"), run_dir=tmp_path / "run")
    assert not (tmp_path / "log.json").exists()
    [message] = caplog.messages
    assert re.search(r"'\.\./log\.json' leads out of the run folder", message)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"log_file": ""}, 'LoggingPlugin: `log_file` must be the name of a file, got "".'),
        ({"log_file": "a\nb"}, 'LoggingPlugin: `log_file` must be the name of a file, got "a\\nb".'),
        ({"log_file": "x" * 300}, "LoggingPlugin: `log_file` must have a name of at most 200 bytes"),
        ({"log_file": 3}, "LoggingPlugin: `log_file` must be a path, got 3."),
        ({"format": "xml"}, "LoggingPlugin: `format` must be one of 'json', 'jsonl' or 'csv' or a list"),
        ({"format": []}, "LoggingPlugin: `format` .*must have at least 1 items"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LoggingPlugin(**arguments)
    assert re.match(fault if ".*" in fault else re.escape(fault), str(caught.value))


def test_unknown_setting_is_refused_with_the_close_match() -> None:
    with pytest.raises(ConfigError, match=r"`plugins\.logging\.config\.logfile`.*`?log_file"):
        build_plugin("logging", LoggingPlugin, {"logfile": "x"})


def test_settings_build_the_plugin() -> None:
    plugin = build_plugin("logging", LoggingPlugin, {"log_file": "x.json", "format": ["csv", "jsonl"]})
    assert isinstance(plugin, LoggingPlugin)
    train(plugin)
    assert sorted(path.name for path in Path().iterdir()) == ["x.csv", "x.jsonl"]


def test_settings_have_the_defaults_of_the_signature() -> None:
    parameters = inspect.signature(LoggingPlugin).parameters
    written = LoggingConfig().model_dump(mode="json")
    assert written == {name: parameter.default for name, parameter in parameters.items()}


def test_settings_are_documented_as_they_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| (.*) \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    defaults = LoggingConfig().model_dump(mode="json")
    fields = LoggingConfig.model_fields.items()
    assert rows == [(name, json.dumps(defaults[name]), field.description) for name, field in fields]


def test_hooks_are_documented_as_they_are() -> None:
    hooks = [name for name in vars(LoggingPlugin) if re.match(r"(start|end|load|save)_", name)]
    section = README.read_text(encoding="utf-8").partition("## Hooks used")[2].partition("## ")[0]
    named = set(re.findall(r"^\| `(\w+_\w+)`", section, re.MULTILINE))
    assert named == set(hooks) - {"load_state_dict"}


def test_plugin_is_found_under_the_name_of_the_guide() -> None:
    assert ResolvedPlugin is LoggingPlugin


def test_plugin_changes_no_numbers() -> None:
    def weights(*plugins: Plugin) -> list[torch.Tensor]:
        torch.manual_seed(3)
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 2))
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(torch.randn(20, 4), torch.randint(2, (20,))), batch_size=5, shuffle=True
        )
        trainer = Trainer()
        for plugin in plugins:
            trainer.add_plugin(plugin)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        trainer.train(model, optimizer, torch.nn.CrossEntropyLoss(), loader, epochs=2, device="cpu")
        return list(model.parameters())

    assert all(torch.equal(*pair) for pair in zip(weights(), weights(LoggingPlugin()), strict=True))


def test_end_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="bz_plugin_logging")
    train(LoggingPlugin())
    assert caplog.messages == [f"training log saved to {Path.cwd() / 'training_log.json'}"]
