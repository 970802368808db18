"""Steps made of several batches, validations inside an epoch, several optimizers, and limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tensorboard_runs import AtBatch, batches, board, curves, load, stop_at, train

from bz import Trainer
from bz.config.models import TrainingSettings
from bz.plugins import Plugin
from bz.spec import TrainingSpec
from bz_plugin_tensorboard import TensorBoardPlugin

if TYPE_CHECKING:
    from bz.context import TrainingContext


class Losses(Plugin):
    """Keeps the loss of each batch, and what each validation came to with its step."""

    def __init__(self) -> None:
        self.training: list[float] = []
        self.validations: list[tuple[int, float]] = []

    def end_training_batch(self, context: TrainingContext) -> None:
        assert context.loss is not None
        self.training.append(context.loss.item())

    def end_validation_loop(self, context: TrainingContext) -> None:
        self.validations.append((context.global_step, context.validation_loss))


class Unsized:
    """Batches that do not say how many they are."""

    def __iter__(self) -> Any:
        return iter(batches())


@pytest.mark.parametrize("loader", [None, Unsized()], ids=["sized", "unsized"])
def test_step_of_several_batches_has_one_point_their_mean_loss(tmp_path: Path, loader: Any) -> None:
    losses = Losses()
    settings: dict[str, Any] = {"log_every": 2, "histograms_every": "2 steps"}
    train(board(**settings), losses, loader=loader, epochs=2, accumulate_batches=5, run_dir=tmp_path)
    found = curves(tmp_path)
    windows = [losses.training[i:j] for i, j in ((0, 5), (5, 10), (10, 12), (12, 17), (17, 22), (22, 24))]
    assert [step for step, _ in found["loss/step"]] == [1, 2, 3, 4, 5, 6]
    assert [value for _, value in found["loss/step"]] == pytest.approx([sum(one) / len(one) for one in windows])
    assert [step for step, _ in found["learning_rate"]] == [2, 3, 4, 6]
    assert [event.step for event in load(tmp_path).Histograms("weights/weight")] == [2, 4, 6]
    assert found["progress/epoch"] == [(3, 1.0), (6, 2.0)]


class StopAfter(Plugin):
    """Stops after so many batches of the first epoch."""

    def __init__(self, num_batches: int) -> None:
        self.num_batches = num_batches

    def end_training_batch(self, context: TrainingContext) -> None:
        if (context.epoch, context.batch_index) == (1, self.num_batches - 1):
            context.request_stop("enough", when="batch")


@pytest.mark.parametrize("num_batches", [1, 4, 5, 6, 11, 12])
@pytest.mark.parametrize("loader", [None, Unsized()], ids=["sized", "unsized"])
def test_resume_inside_a_window_leaves_no_trace(tmp_path: Path, num_batches: int, loader: Any) -> None:
    options: dict[str, Any] = {"epochs": 2, "accumulate_batches": 5, "loader": loader}
    train(board(log_every=2), run_dir=tmp_path / "whole", **options)
    train(board(log_every=2), StopAfter(num_batches), run_dir=tmp_path / "a", **options)
    train(board(log_every=2), run_dir=tmp_path / "a", resume=tmp_path / "a", **options)
    assert curves(tmp_path / "a") == curves(tmp_path / "whole")


def test_each_validation_has_its_points(tmp_path: Path) -> None:
    losses = Losses()
    train(board(), losses, epochs=2, validation_interval="5 steps", validate_first=True, run_dir=tmp_path)
    found = curves(tmp_path)
    assert [step for step, _ in found["loss/validation"]] == [0, 5, 10, 15, 20]
    assert [loss for _, loss in found["loss/validation"]] == pytest.approx([loss for _, loss in losses.validations])
    assert [step for step, _ in found["mean_output/validation"]] == [0, 5, 10, 15, 20]
    assert [step for step, _ in found["loss/training"]] == [12, 24]


def test_epoch_without_validation_repeats_none(tmp_path: Path) -> None:
    train(board(), epochs=5, validation_interval="2 epochs", run_dir=tmp_path)
    assert [step for step, _ in curves(tmp_path)["loss/validation"]] == [24, 48]


@pytest.mark.parametrize("step", [5, 7, 12, 15])
def test_resume_between_validations_leaves_no_trace(tmp_path: Path, step: int) -> None:
    options: dict[str, Any] = {"epochs": 2, "validation_interval": "5 steps", "validate_first": True}
    train(board(), run_dir=tmp_path / "whole", **options)
    train(board(), stop_at(step), run_dir=tmp_path / "a", **options)
    train(board(), run_dir=tmp_path / "a", resume=tmp_path / "a", **options)
    assert curves(tmp_path / "a") == curves(tmp_path / "whole")


def test_run_that_ends_by_a_limit_has_all_curves(tmp_path: Path) -> None:
    result = train(board(), epochs=None, max_steps=17, run_dir=tmp_path)
    found = curves(tmp_path)
    assert (result.status, [step for step, _ in found["loss/step"]]) == ("completed", list(range(1, 18)))
    assert [[step for step, _ in found[tag]] for tag in ("loss/training", "loss/validation")] == [[12, 17]] * 2


def test_each_optimizer_has_its_learning_rate(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    optimizers = {
        "generator": torch.optim.SGD(model[0].parameters(), lr=0.1),
        "critic": torch.optim.SGD([{"params": [one]} for one in model[1].parameters()], lr=0.01),
    }

    def step(context: Any, batch: Any) -> torch.Tensor:
        loss: torch.Tensor = torch.nn.functional.mse_loss(context.model(batch[0]), batch[1])
        context.backward(loss)
        for optimizer in context.optimizer.values():
            context.step_optimizer(optimizer)
            optimizer.zero_grad()
        return loss

    trainer = Trainer(strict_plugins=True)
    trainer.add_plugin(board())
    trainer.train(model, optimizers, None, batches(), training_step=step, run_dir=tmp_path, device="cpu")
    found = curves(tmp_path)
    rates = {tag: points[0][1] for tag, points in found.items() if tag.startswith("learning_rate")}
    assert rates == pytest.approx(
        {"learning_rate/generator": 0.1, "learning_rate/critic_0": 0.01, "learning_rate/critic_1": 0.01}
    )
    assert len(found["loss/step"]) == 12


class Norms(Plugin):
    """Keeps the gradient norm of each step."""

    def __init__(self) -> None:
        self.values: dict[int, float] = {}

    def end_training_batch(self, context: TrainingContext) -> None:
        if context.grad_norm is not None and context.global_step:
            self.values.setdefault(context.global_step, context.grad_norm.item())


@pytest.mark.parametrize("accumulate_batches", [1, 5])
def test_gradient_norm_of_each_step_is_shown_where_gradients_are_clipped(
    tmp_path: Path, accumulate_batches: int
) -> None:
    model, norms, trainer = torch.nn.Linear(3, 1), Norms(), Trainer(strict_plugins=True)
    spec = TrainingSpec(model, torch.optim.SGD(model.parameters(), lr=0.1), torch.nn.MSELoss(), batches())
    for plugin in (board(), norms):
        trainer.add_plugin(plugin)
    settings = TrainingSettings(device="cpu", clip_grad_norm=0.5, accumulate_batches=accumulate_batches)
    trainer.run(spec, settings, run_dir=tmp_path)
    assert dict(curves(tmp_path)["grad_norm"]) == pytest.approx(norms.values)
    assert len(norms.values) == (12 if accumulate_batches == 1 else 3)


def test_gradient_norm_is_not_computed_for_its_own_sake(tmp_path: Path) -> None:
    train(board(), run_dir=tmp_path, epochs=1)
    assert "grad_norm" not in curves(tmp_path)


def test_run_whose_events_cannot_be_written_keeps_no_losses(tmp_path: Path) -> None:
    plugin = TensorBoardPlugin(log_dir=tmp_path / "file")
    (tmp_path / "file").touch()
    kept: list[int] = []
    look = AtBatch(9, lambda _: kept.append(len(plugin._losses._pending)))
    train(plugin, look, strict=False)
    assert kept == [0]
