"""The average beside all that a training can be: accumulation, validation inside epochs, bf16, compiled models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from averaging_runs import (
    BATCHES,
    DECAY,
    EPOCHS,
    Weights,
    averaged,
    averaging_spec,
    read,
    run,
    same,
    validation_loss,
)
from torch.utils.data import DataLoader, IterableDataset
from typer.testing import CliRunner

from bz.cli.app import app
from bz.script import load_script
from bz.testing import RecordingPlugin
from bz_plugin_averaging import AveragingPlugin

if TYPE_CHECKING:
    from bz import TrainingSpec

SCRIPT = """
import torch
from bz import TrainingSpec

def build(hyperparameters):
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(30, 4, generator=generator), torch.randint(0, 3, (30,), generator=generator)
    data = torch.utils.data.TensorDataset(inputs, targets)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))
    return TrainingSpec(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
        loss_fn=torch.nn.CrossEntropyLoss(),
        training_loader=torch.utils.data.DataLoader(data, 10, shuffle=True),
        validation_loader=torch.utils.data.DataLoader(data, 15),
    )
"""


class Stream(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Samples whose number nobody knows before."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for index in range(12):
            yield torch.randn(4, generator=generator), torch.tensor(index % 3)


class Steps(RecordingPlugin):
    """Notes the weights after each optimizer step, and those validated beside the average over the steps so far."""

    def __init__(self) -> None:
        super().__init__(self._look)
        self.weights: dict[int, torch.Tensor] = {}
        self.validated: list[tuple[torch.Tensor, torch.Tensor]] = []

    def _look(self, hook: str, context: Any) -> None:
        if hook in {"end_training_batch", "end_training_loop"} and context.global_step:
            self.weights.setdefault(context.global_step, context.model[0].weight.detach().clone())
        if hook == "start_validation_loop":
            self.validated.append((context.model[0].weight.detach().clone(), self.average()))

    def average(self) -> torch.Tensor:
        """Return the moving average over the steps."""
        average, *others = self.weights.values()
        for weight in others:
            average = torch.lerp(average, weight, 1 - DECAY)
        return average


@pytest.mark.parametrize("loader", [None, DataLoader(Stream(), 4)], ids=["of known length", "of unknown length"])
def test_batches_of_one_step_count_once(loader: DataLoader[Any] | None) -> None:
    steps, plugin = Steps(), AveragingPlugin(decay=DECAY, output=None)
    spec = averaging_spec(**({} if loader is None else {"training_loader": loader}))
    spec.plugins = [steps]
    result, _ = run(plugin, spec, accumulate_batches=2)
    assert result.global_step == len(steps.weights) == plugin.state_dict()["count"] == 2 * EPOCHS
    assert torch.equal(averaged(plugin)["0.weight"], steps.average())


@pytest.mark.parametrize("batches", [1, 2, 4, 5, 9])
def test_run_stopped_inside_a_window_of_accumulation_goes_on_exactly(tmp_path: Path, batches: int) -> None:
    _, spec = run(AveragingPlugin(decay=DECAY), run_dir=tmp_path / "undisturbed", accumulate_batches=2)

    def stop(hook: str, context: Any) -> None:
        if hook == "end_training_batch" and (context.epoch - 1) * BATCHES + context.batch_index + 1 == batches:
            context.request_stop("enough", when="batch")

    first = averaging_spec()
    first.plugins = [RecordingPlugin(stop)]
    folder, other = tmp_path / "resumed", averaging_spec()
    run(AveragingPlugin(decay=DECAY), first, run_dir=folder, accumulate_batches=2)
    run(AveragingPlugin(decay=DECAY), other, run_dir=folder, resume=folder, accumulate_batches=2)
    assert same(other.model.state_dict(), spec.model.state_dict())
    assert same(read(folder / "averaged.pth"), read(tmp_path / "undisturbed" / "averaged.pth"))


@pytest.mark.parametrize("interval", ["1 step", "2 steps", "1 epoch"])
def test_validation_has_the_average_up_to_its_step(interval: str) -> None:
    steps = Steps()
    spec = averaging_spec()
    spec.plugins = [steps]
    run(AveragingPlugin(decay=DECAY, output=None), spec, validation_interval=interval)
    assert len(steps.validated) == {"1 step": 12, "2 steps": 6, "1 epoch": 4}[interval]
    assert all(torch.equal(validated, expected) for validated, expected in steps.validated)


def test_trained_weights_are_back_after_each_validation(tmp_path: Path) -> None:
    seen: list[tuple[str, Weights]] = []

    def look(hook: str, context: Any) -> None:
        seen.append((hook, {name: value.clone() for name, value in context.model.state_dict().items()}))

    spec = averaging_spec()
    spec.plugins = [RecordingPlugin(look)]
    run(AveragingPlugin(decay=DECAY, output=None), spec, epochs=2)
    before, during, after = (
        [weights for hook, weights in seen if hook == name]
        for name in ("end_training_loop", "start_validation_loop", "end_epoch")
    )
    for trained, validated, put_back in zip(before, during, after, strict=True):
        assert same(trained, put_back)
        assert not same(trained, validated)


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"compile": {"backend": "eager"}}], ids=str)
def test_resume_is_exact_with(tmp_path: Path, options: dict[str, Any]) -> None:
    def folder(name: str, *stops: object, **more: Any) -> tuple[Path, TrainingSpec]:
        spec = averaging_spec()
        spec.plugins = stops
        run(AveragingPlugin(decay=DECAY), spec, run_dir=tmp_path / name, **options, **more)
        return tmp_path / name / "averaged.pth", spec

    def stop(hook: str, context: Any) -> None:
        if hook == "end_training_batch" and context.global_step == 5:
            context.request_stop("enough", when="batch")

    undisturbed, spec = folder("undisturbed")
    folder("resumed", RecordingPlugin(stop))
    resumed, other = folder("resumed", resume=tmp_path / "resumed")
    assert same(other.model.state_dict(), spec.model.state_dict())
    assert same(read(resumed), read(undisturbed))
    averaging_spec().model.load_state_dict(read(resumed))


def test_commands_use_the_average_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT, encoding="utf-8")
    settings = {
        "training": {"epochs": 3, "seed": 1, "device": "cpu"},
        "plugins": {"averaging": {"config": {"decay": 0.9}}},
    }
    (tmp_path / "bz.json").write_text(json.dumps(settings), encoding="utf-8")

    def call(*arguments: str) -> Any:
        result = CliRunner().invoke(app, [*arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    call("train", "--name", "one", "--plugin", "averaging")
    validated = json.loads(call("validate", "one", "--json"))
    trained = json.loads(call("validate", "one", "--json", "--weights", "trained"))
    call("predict", "one", "--output", "predictions.pt")
    spec = load_script(tmp_path / "train.py", {}).spec
    spec.model.load_state_dict(read(tmp_path / "runs" / "one" / "averaged.pth"))
    spec.validation_loader = list(spec.validation_loader or ())
    assert (validated["weights"], validated["validation_loss"]) == ("evaluation", validation_loss(spec, spec.model))
    assert (trained["weights"], trained["validation_loss"] != validated["validation_loss"]) == ("trained", True)
    with torch.no_grad():
        outputs = [spec.model(inputs) for inputs, _ in spec.validation_loader]
    assert torch.equal(torch.load("predictions.pt", weights_only=True)["output"], torch.cat(outputs))
