"""A run that was stopped anywhere goes on to the same bits, whatever it is told to do with its batches."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchmetrics.classification import MulticlassAccuracy

from bz import LRSchedule, StepResult, Trainer, TrainingContext, TrainingSpec
from bz.config import TrainingSettings
from bz.testing import RecordingPlugin

if TYPE_CHECKING:
    from pathlib import Path

    from bz.training.result import TrainingResult

EPOCHS: Final = 3
BATCHES: Final = 5
BATCH_SIZE: Final = 4


class Augmented(Dataset[Any]):
    """Samples that are disturbed by all three kinds of shared random numbers; the last batch is a smaller one."""

    def __len__(self) -> int:
        return BATCHES * BATCH_SIZE - 1

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = [random.gauss(0, 1), np.random.randn(), float(torch.rand(()))]
        return torch.tensor([index / 10, *noise]), torch.tensor(index % 3)


class Stream(IterableDataset[Any]):
    """The same samples without a length, so that nobody knows which batch is the last."""

    def __iter__(self) -> Iterator[Any]:
        samples = Augmented()
        for index in torch.randperm(len(samples)).tolist():
            yield samples[index]


def make_spec(**changes: Any) -> Any:
    """Seed everything and return a spec that is sensitive to every random number; its type is left open."""
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
    fields: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "loss_fn": nn.CrossEntropyLoss(),
        "training_loader": DataLoader(Augmented(), BATCH_SIZE, shuffle=True),
        "validation_loader": DataLoader(Augmented(), 10),
    }
    return TrainingSpec(**fields | changes)


def weighted_step(context: TrainingContext, batch: Any) -> StepResult:
    """Return a loss that counts with something else than the samples, as a mean over tokens does."""
    inputs, targets = batch
    return StepResult(cross_entropy(context.model(inputs), targets), weight=(targets + 1).sum())


def spoilt_step(context: TrainingContext, batch: Any) -> torch.Tensor:
    """Return a loss that is not finite for every third batch."""
    inputs, targets = batch
    loss = cross_entropy(context.model(inputs), targets)
    return loss * float("nan") if context.batch_index % 3 == 1 else loss


def large_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return a loss with which fp16 leaves the first steps out."""
    return 40 * cross_entropy(outputs, targets)


def one_cycle(steps_per_epoch: int) -> Any:
    spec = make_spec()
    schedule = lr_scheduler.OneCycleLR(spec.optimizer, max_lr=0.3, total_steps=EPOCHS * steps_per_epoch)
    spec.lr_scheduler = LRSchedule(schedule, every="1 step")
    return spec


def warm_up_and_cosine() -> Any:
    spec = make_spec()
    warm_up = lr_scheduler.LinearLR(spec.optimizer, 0.1, total_iters=4)
    cosine = lr_scheduler.CosineAnnealingLR(spec.optimizer, T_max=10)
    spec.lr_scheduler = lr_scheduler.SequentialLR(spec.optimizer, [warm_up, cosine], milestones=[4])
    return spec


def several_schedulers() -> Any:
    spec = make_spec()
    spec.lr_scheduler = [
        LRSchedule(lr_scheduler.LinearLR(spec.optimizer, 0.2, total_iters=9), every="1 step"),
        LRSchedule(lr_scheduler.ExponentialLR(spec.optimizer, 0.9), every="3 steps"),
        lr_scheduler.StepLR(spec.optimizer, 1, gamma=0.7),
    ]
    return spec


def plateau() -> Any:
    spec = make_spec()
    spec.lr_scheduler = lr_scheduler.ReduceLROnPlateau(spec.optimizer, factor=0.5, patience=0, threshold=0.5)
    return spec


class GAN(nn.Module):
    """Two networks with an optimizer each."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 4))
        self.discriminator = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 1))


def gan_step(context: TrainingContext, batch: Any) -> torch.Tensor:
    gan: Any = context.model
    optimizers, (real, _) = context.optimizer, batch
    fake = gan.generator(torch.randn(len(real), 4))
    optimizers["discriminator"].zero_grad()
    loss: torch.Tensor = nn.functional.softplus(gan.discriminator(fake.detach()) - gan.discriminator(real)).mean()
    context.backward(loss)
    context.step_optimizer(optimizers["discriminator"])
    optimizers["generator"].zero_grad()
    context.backward(nn.functional.softplus(-gan.discriminator(fake)).mean())
    context.step_optimizer(optimizers["generator"])
    return loss


def gan(*, has_schedulers: bool = True) -> Any:
    spec = make_spec(loss_fn=None, validation_loader=None, training_step=gan_step)
    spec.model = GAN()
    spec.optimizer = {
        "generator": torch.optim.Adam(spec.model.generator.parameters(), lr=0.01),
        "discriminator": torch.optim.Adam(spec.model.discriminator.parameters(), lr=0.02),
    }
    if has_schedulers:
        schedules = [lr_scheduler.ExponentialLR(one, 0.95) for one in spec.optimizer.values()]
        spec.lr_scheduler = [LRSchedule(one, every="1 step") for one in schedules]
    return spec


def persistent_workers() -> Any:
    return make_spec(
        training_loader=DataLoader(Augmented(), BATCH_SIZE, shuffle=True, num_workers=2, persistent_workers=True)
    )


class Case(NamedTuple):
    """What is trained, and how."""

    make: Callable[[], Any]
    settings: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it


CASES: Final = {
    "accumulation": Case(make_spec, {"accumulate_batches": 2}),
    "accumulation, one window an epoch": Case(make_spec, {"accumulate_batches": 9, "clip_grad_norm": 0.1}),
    "accumulation with weights": Case(lambda: make_spec(training_step=weighted_step), {"accumulate_batches": 3}),
    "accumulation of a stream": Case(
        lambda: make_spec(training_loader=DataLoader(Stream(), BATCH_SIZE)), {"accumulate_batches": 3}
    ),
    "accumulation with losses that are skipped": Case(
        lambda: make_spec(training_step=spoilt_step), {"accumulate_batches": 2, "on_nonfinite": "skip"}
    ),
    "clipping": Case(make_spec, {"clip_grad_value": 0.01}),
    "one cycle": Case(lambda: one_cycle(BATCHES)),
    "one cycle, accumulated": Case(lambda: one_cycle(3), {"accumulate_batches": 2}),
    "warm-up and cosine": Case(warm_up_and_cosine, {"scheduler_interval": "1 step"}),
    "several schedulers": Case(several_schedulers),
    "plateau": Case(plateau),
    "plateau inside epochs": Case(plateau, {"validation_interval": "2 steps", "scheduler_interval": "2 steps"}),
    "bf16": Case(make_spec, {"precision": "bf16", "accumulate_batches": 2}),
    "fp16": Case(lambda: make_spec(loss_fn=large_loss), {"precision": "fp16"}),
    "fp16, accumulated and clipped": Case(
        lambda: make_spec(loss_fn=large_loss), {"precision": "fp16", "accumulate_batches": 2, "clip_grad_norm": 0.5}
    ),
    "gan": Case(gan),
    "gan, fp16": Case(lambda: gan(has_schedulers=False), {"precision": "fp16", "clip_grad_norm": 0.1}),
    "validation inside epochs": Case(make_spec, {"validation_interval": "2 steps"}),
    "validation at the last steps of epochs": Case(make_spec, {"validation_interval": f"{BATCHES} steps"}),
    "validation inside epochs, accumulated": Case(
        make_spec, {"validation_interval": "2 steps", "accumulate_batches": 2}
    ),
    "validation of some epochs": Case(make_spec, {"validation_interval": 2, "limit_validation_batches": 1}),
    "validation first": Case(make_spec, {"validate_first": True}),
    "limited steps": Case(make_spec, {"epochs": None, "max_steps": 12}),
    "limited steps, accumulated": Case(make_spec, {"epochs": None, "max_steps": 7, "accumulate_batches": 2}),
    "limited batches": Case(make_spec, {"limit_train_batches": 3}),
    "limited batches of a stream, accumulated": Case(
        lambda: make_spec(training_loader=DataLoader(Stream(), BATCH_SIZE)),
        {"limit_train_batches": 3, "accumulate_batches": 2},
    ),
    "limited batches of persistent workers": Case(persistent_workers, {"limit_train_batches": 3, "epochs": 2}),
    "metrics that join batches": Case(
        lambda: make_spec(metrics={"accuracy": MulticlassAccuracy(3)}), {"validation_interval": "3 steps"}
    ),
    "overfitting": Case(make_spec, {"overfit_batches": 2}),
    "deterministic": Case(make_spec, {"deterministic": True}),
}


def train(spec: Any, *plugins: object, resume: Path | None = None, **settings: Any) -> TrainingResult:
    trainer = Trainer(strict_plugins=True)
    for plugin in plugins:
        trainer.add_plugin(plugin)
    options = {"epochs": EPOCHS, "device": "cpu", "checkpoint_interval": 0, **settings}
    run_dir = options.pop("run_dir", None)
    if run_dir is not None:
        options["checkpoint_interval"] = 1
    return trainer.run(spec, TrainingSettings.model_validate(options), run_dir=run_dir, resume=resume)


def stop_at(event: str, count: int) -> RecordingPlugin:
    """Return a plugin that asks for a stop after the batch at the count-th such event."""
    seen = 0

    def on_event(hook: str, context: TrainingContext) -> None:
        nonlocal seen
        seen += hook == event
        if hook == event and seen == count:
            context.request_stop("for the test", when="batch")

    return RecordingPlugin(on_event)


def outcome(spec: Any, result: TrainingResult) -> dict[str, Any]:
    """Return everything that must be equal, the next random numbers included."""
    return {
        "status": result.status,
        "steps": result.global_step,
        "history": result.history,
        "model": {name: tensor.tolist() for name, tensor in spec.model.state_dict().items()},
        "optimizers": [_plain(one.state_dict()) for one in spec.optimizers],
        "random": [random.random(), float(np.random.randn()), float(torch.rand(()))],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def run_whole(case: Case) -> dict[str, Any]:
    spec = case.make()
    return outcome(spec, train(spec, **case.settings))


def go_on(case: Case, folder: Path, *plugins: object) -> tuple[Any, TrainingResult]:
    """Resume in what may be another process: with other random numbers."""
    spec = case.make()
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    return spec, train(spec, *plugins, run_dir=folder, resume=folder, **case.settings)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_run_stopped_at_every_batch_goes_on_bit_equal(case: Case, tmp_path: Path) -> None:
    spec = case.make()
    result = train(spec, stop_at("end_training_batch", 1), run_dir=tmp_path, **case.settings)
    sessions = 1
    while result.status == "stopped":
        spec, result = go_on(case, tmp_path, stop_at("end_training_batch", 1))
        sessions += 1
        assert sessions < 40
    assert sessions > EPOCHS
    assert outcome(spec, result) == run_whole(case)


# Batches of validation after which to stop; before the first epoch there is nothing to go on from.
MOMENTS: Final = {
    **{case: (1, 2, 3, 5) for case in CASES if "validation" in case or "plateau" in case},
    "validation of some epochs": (1,),
    "validation first": (3, 5),
}


@pytest.mark.parametrize(("case", "count"), [(case, count) for case, counts in MOMENTS.items() for count in counts])
def test_run_stopped_inside_a_validation_goes_on_bit_equal(case: str, count: int, tmp_path: Path) -> None:
    stopped = train(
        CASES[case].make(), stop_at("end_validation_batch", count), run_dir=tmp_path, **CASES[case].settings
    )
    assert stopped.status == "stopped"
    spec, result = go_on(CASES[case], tmp_path)
    assert outcome(spec, result) == run_whole(CASES[case])


@pytest.mark.parametrize("settings", [{}, {"accumulate_batches": 2}, {"validation_interval": "2 steps"}], ids=str)
@pytest.mark.parametrize("max_steps", range(1, 10))
def test_run_that_reached_its_steps_is_extended_bit_equal(
    settings: dict[str, Any], max_steps: int, tmp_path: Path
) -> None:
    limited = train(make_spec(), run_dir=tmp_path, epochs=None, max_steps=max_steps, **settings)
    assert (limited.status, limited.global_step) == ("completed", max_steps)
    whole = Case(make_spec, settings)
    spec, result = go_on(whole, tmp_path)
    assert outcome(spec, result) == run_whole(whole)


def test_run_extended_step_by_step_is_bit_equal(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": None, "accumulate_batches": 2, "validation_interval": "2 steps"}
    train(make_spec(), run_dir=tmp_path, max_steps=1, **settings)
    for max_steps in range(2, 9):
        go_on(Case(make_spec, {**settings, "max_steps": max_steps}), tmp_path)
    last = Case(make_spec, {**settings, "max_steps": 9})
    spec, result = go_on(last, tmp_path)
    assert outcome(spec, result) == run_whole(last)
