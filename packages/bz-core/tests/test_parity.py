"""What bz trains is, bit for bit, what a loop written by hand trains: weights, buffers and optimizer state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bz import LRSchedule, Trainer, TrainingContext, TrainingSpec
from bz.config import TrainingSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bz.training.result import TrainingResult

EPOCHS = 3
BATCHES = 8
BATCH_SIZE = 4
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def make_spec(**changes: Any) -> Any:
    """Seed torch and return a `TrainingSpec` that is sensitive to every random number and every bit of state.

    Its type is left open, because a loop by hand knows what its optimizer is.
    """
    torch.manual_seed(7)
    num_samples = BATCHES * BATCH_SIZE
    data = TensorDataset(torch.randn(num_samples, 6), torch.randint(0, 3, (num_samples,)))
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    fields: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "loss_fn": nn.CrossEntropyLoss(),
        "training_loader": DataLoader(data, BATCH_SIZE, shuffle=True),
    }
    return TrainingSpec(**fields | changes)


def run(spec: TrainingSpec, **settings: Any) -> TrainingResult:
    torch.manual_seed(11)
    checked = TrainingSettings.model_validate({"epochs": EPOCHS, "checkpoint_interval": 0, "device": "cpu"} | settings)
    return Trainer().run(spec, checked)


def epochs(spec: TrainingSpec) -> Iterator[Iterable[Any]]:
    """Seed torch as `run` does, and yield the loader once an epoch, with the model in train mode."""
    torch.manual_seed(11)
    for _ in range(EPOCHS):
        spec.model.train()
        yield spec.training_loader


def assert_bit_equal(one: TrainingSpec, other: TrainingSpec) -> None:
    states = [
        {"model": spec.model.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in spec.optimizers]}
        for spec in (one, other)
    ]
    torch.testing.assert_close(*states, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad])
def test_plain_training_equals_that_by_hand(kind: type[torch.optim.Optimizer]) -> None:
    by_hand, with_bz = make_spec(), make_spec()
    for spec in (by_hand, with_bz):
        spec.optimizer = kind(spec.model.parameters(), lr=0.01)  # type: ignore[call-arg] # each of them has one
    for loader in epochs(by_hand):
        for inputs, targets in loader:
            by_hand.optimizer.zero_grad()
            by_hand.loss_fn(by_hand.model(inputs), targets).backward()
            by_hand.optimizer.step()
    assert run(with_bz).global_step == EPOCHS * BATCHES
    assert_bit_equal(with_bz, by_hand)


@pytest.mark.parametrize("window", [2, 3, 4, 5, 7, 8, 20])
def test_accumulation_equals_that_by_hand(window: int) -> None:
    by_hand, with_bz = make_spec(), make_spec()
    steps = 0
    for loader in epochs(by_hand):
        for index, (inputs, targets) in enumerate(loader):
            first = index - index % window
            batches_in_window = min(window, BATCHES - first)
            loss = by_hand.loss_fn(by_hand.model(inputs), targets)
            (loss / batches_in_window).backward()
            if index + 1 == first + batches_in_window:
                by_hand.optimizer.step()
                by_hand.optimizer.zero_grad()
                steps += 1
    assert run(with_bz, accumulate_batches=window).global_step == steps
    assert_bit_equal(with_bz, by_hand)


@pytest.mark.parametrize(
    ("setting", "clip"),
    [
        ({"clip_grad_norm": 0.4}, lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.4)),
        ({"clip_grad_value": 0.02}, lambda parameters: nn.utils.clip_grad_value_(parameters, 0.02)),
    ],
    ids=["norm", "value"],
)
@pytest.mark.parametrize("window", [1, 3])
def test_clipping_equals_that_by_hand(setting: dict[str, float], clip: Callable[[Any], Any], window: int) -> None:
    by_hand, unclipped, with_bz = make_spec(), make_spec(), make_spec()
    for loader in epochs(by_hand):
        for index, (inputs, targets) in enumerate(loader):
            batches_in_window = min(window, BATCHES - (index - index % window))
            (by_hand.loss_fn(by_hand.model(inputs), targets) / batches_in_window).backward()
            if (index + 1) % window == 0 or index + 1 == BATCHES:
                clip(by_hand.model.parameters())
                by_hand.optimizer.step()
                by_hand.optimizer.zero_grad()
    run(with_bz, accumulate_batches=window, **setting)
    assert_bit_equal(with_bz, by_hand)
    run(unclipped, accumulate_batches=window)
    with pytest.raises(AssertionError):
        assert_bit_equal(unclipped, by_hand)


class Case(NamedTuple):
    """Schedulers of both kinds, and how bz is told of them.

    Attributes:
        settings: Of bz.
        per_step: Makes the schedulers that are stepped after each step of the optimizer.
        per_epoch: Makes those that are stepped after each epoch.
        every: What an `LRSchedule` says of the two kinds; None for a bare scheduler.
    """

    settings: dict[str, Any]
    per_step: Callable[[Any], list[Any]] = lambda _: []
    per_epoch: Callable[[Any], list[Any]] = lambda _: []
    every: tuple[str, str] | None = None


def warm_up_and_cosine(optimizer: Any) -> list[Any]:
    warm_up = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=5)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS * BATCHES - 5)
    return [lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], milestones=[5])]


def warm_up_and_decay(optimizer: Any) -> list[Any]:
    return [lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 6) * 0.97**step)]


SCHEDULERS = {
    "one cycle": Case(
        {"scheduler_interval": "1 step"},
        per_step=lambda optimizer: [lr_scheduler.OneCycleLR(optimizer, max_lr=0.3, total_steps=EPOCHS * BATCHES)],
    ),
    "one cycle, accumulated": Case(
        {"scheduler_interval": "1 step", "accumulate_batches": 3},
        per_step=lambda optimizer: [lr_scheduler.OneCycleLR(optimizer, max_lr=0.3, total_steps=EPOCHS * 3)],
    ),
    "warm-up and cosine": Case({"scheduler_interval": "1 step"}, per_step=warm_up_and_cosine),
    "lambda": Case({}, per_step=warm_up_and_decay, every=("1 step", "1 epoch")),
    "step, per epoch": Case({}, per_epoch=lambda optimizer: [lr_scheduler.StepLR(optimizer, 1, gamma=0.3)]),
    "several": Case(
        {"scheduler_interval": "7 steps"},
        per_step=lambda optimizer: [lr_scheduler.LinearLR(optimizer, 0.2, total_iters=10)],
        per_epoch=lambda optimizer: [
            lr_scheduler.StepLR(optimizer, 2, gamma=0.5),
            lr_scheduler.ExponentialLR(optimizer, 0.9),
        ],
        every=("1 step", "1 epoch"),
    ),
}


@pytest.mark.parametrize("case", SCHEDULERS.values(), ids=SCHEDULERS)
def test_schedulers_equal_those_by_hand(case: Case) -> None:
    by_hand, with_bz = make_spec(), make_spec()
    window = case.settings.get("accumulate_batches", 1)
    per_step, per_epoch = case.per_step(by_hand.optimizer), case.per_epoch(by_hand.optimizer)
    rates = set()
    for loader in epochs(by_hand):
        for index, (inputs, targets) in enumerate(loader):
            batches_in_window = min(window, BATCHES - (index - index % window))
            (by_hand.loss_fn(by_hand.model(inputs), targets) / batches_in_window).backward()
            if (index + 1) % window == 0 or index + 1 == BATCHES:
                by_hand.optimizer.step()
                by_hand.optimizer.zero_grad()
                for scheduler in per_step:
                    scheduler.step()
            rates.add(by_hand.optimizer.param_groups[0]["lr"])
        for scheduler in per_epoch:
            scheduler.step()
    assert len(rates) >= EPOCHS

    step_kind, epoch_kind = case.per_step(with_bz.optimizer), case.per_epoch(with_bz.optimizer)
    if case.every is None:
        [with_bz.lr_scheduler] = [*step_kind, *epoch_kind]
    else:
        with_bz.lr_scheduler = [
            LRSchedule(scheduler, every)
            for every, kind in zip(case.every, (step_kind, epoch_kind), strict=True)
            for scheduler in kind
        ]
    run(with_bz, **case.settings)
    assert_bit_equal(with_bz, by_hand)


class Accuracy:
    """A metric: the share of right answers."""

    def __init__(self) -> None:
        self.reset()

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        self.right += int((preds.argmax(1) == target).sum())
        self.count += len(target)

    def compute(self) -> float:
        return self.right / self.count

    def reset(self) -> None:
        self.right = self.count = 0


def validate(spec: Any, loader: Iterable[Any]) -> dict[str, float]:
    """Return the mean loss over the batches and the share of right answers, as a validation by hand does."""
    spec.model.eval()
    losses, accuracy = [], Accuracy()
    with torch.no_grad():
        for inputs, targets in loader:
            outputs = spec.model(inputs)
            losses.append(spec.loss_fn(outputs, targets).item())
            accuracy.update(outputs, targets)
    return {"validation_loss": sum(losses) / len(losses), "validation_accuracy": accuracy.compute()}


@pytest.mark.parametrize("monitor", ["validation_loss", "validation_accuracy", "training_loss"])
@pytest.mark.parametrize("said_by", ["settings", "script"])
def test_plateau_equals_that_by_hand(monitor: str, said_by: str) -> None:
    def plateau(spec: Any) -> Any:
        mode: Any = "max" if monitor == "validation_accuracy" else "min"
        return lr_scheduler.ReduceLROnPlateau(spec.optimizer, mode, factor=0.5, patience=0, threshold=0.3)

    by_hand, with_bz = make_spec(), make_spec()
    validation_loader = DataLoader(by_hand.training_loader.dataset, 5)
    scheduler, monitored = plateau(by_hand), []
    for loader in epochs(by_hand):
        losses = []
        for inputs, targets in loader:
            by_hand.optimizer.zero_grad()
            loss = by_hand.loss_fn(by_hand.model(inputs), targets)
            loss.backward()
            by_hand.optimizer.step()
            losses.append(loss.item())
        values = validate(by_hand, validation_loader) | {"training_loss": sum(losses) / len(losses)}
        monitored.append(values[monitor])
        scheduler.step(values[monitor])
    assert by_hand.optimizer.param_groups[0]["lr"] < 0.1

    with_bz.validation_loader, with_bz.metrics = validation_loader, {"accuracy": Accuracy()}
    if said_by == "settings":
        with_bz.lr_scheduler = plateau(with_bz)
        result = run(with_bz, scheduler_monitor=monitor)
    else:
        with_bz.lr_scheduler = LRSchedule(plateau(with_bz), monitor=monitor)
        result = run(with_bz)
    assert [row[monitor] for row in result.history] == monitored
    assert_bit_equal(with_bz, by_hand)


class Sentences(Dataset[Any]):
    """Mappings, as tokenizers of text make them; sensitive to torch's random numbers."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = torch.randint(0, 11, (5,))
        return {"input_ids": tokens, "labels": (tokens + index) % 11}


class Output(NamedTuple):
    """What models of the transformers package return, in small."""

    loss: torch.Tensor
    logits: torch.Tensor


class LanguageModel(nn.Module):
    """Takes the batch as keywords and computes its own loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Embedding(11, 8), nn.Dropout(0.2), nn.Linear(8, 11))

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> Output:
        logits = self.layers(input_ids)
        return Output(cross_entropy(logits.flatten(0, 1), labels.flatten()), logits)


def make_language_spec() -> Any:
    torch.manual_seed(7)
    model = LanguageModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return TrainingSpec(model, optimizer, None, DataLoader(Sentences(), 4, shuffle=True))


def test_mapping_batches_of_a_model_with_its_own_loss_equal_those_by_hand() -> None:
    by_hand, with_bz = make_language_spec(), make_language_spec()
    for loader in epochs(by_hand):
        for batch in loader:
            by_hand.optimizer.zero_grad()
            by_hand.model(**batch).loss.backward()
            by_hand.optimizer.step()
    run(with_bz)
    assert_bit_equal(with_bz, by_hand)


@pytest.mark.parametrize("window", [1, 3])
def test_bf16_equals_autocast_by_hand(window: int) -> None:
    by_hand, with_bz = make_spec(), make_spec()
    for loader in epochs(by_hand):
        for index, (inputs, targets) in enumerate(loader):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = by_hand.loss_fn(by_hand.model(inputs), targets)
            (loss / min(window, BATCHES - (index - index % window))).backward()
            if (index + 1) % window == 0 or index + 1 == BATCHES:
                by_hand.optimizer.step()
                by_hand.optimizer.zero_grad()
    run(with_bz, precision="bf16", accumulate_batches=window)
    assert_bit_equal(with_bz, by_hand)


def large_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return a loss whose first scaled gradients are too large for fp16."""
    return 40 * cross_entropy(outputs, targets)


@pytest.mark.parametrize("max_norm", [None, 0.4])
@pytest.mark.parametrize("window", [1, 3])
def test_fp16_equals_a_gradient_scaler_by_hand(max_norm: float | None, window: int) -> None:
    by_hand, with_bz = make_spec(loss_fn=large_loss), make_spec(loss_fn=large_loss)
    scaler = torch.amp.GradScaler("cpu")
    steps, tried = 0, 0
    for loader in epochs(by_hand):
        for index, (inputs, targets) in enumerate(loader):
            with torch.autocast("cpu", dtype=torch.float16):
                loss = by_hand.loss_fn(by_hand.model(inputs), targets)
            scaler.scale(loss / min(window, BATCHES - (index - index % window))).backward()
            if (index + 1) % window == 0 or index + 1 == BATCHES:
                if max_norm is not None:
                    scaler.unscale_(by_hand.optimizer)
                    nn.utils.clip_grad_norm_(by_hand.model.parameters(), max_norm)
                scale = scaler.get_scale()
                scaler.step(by_hand.optimizer)
                scaler.update()
                by_hand.optimizer.zero_grad()
                steps += scaler.get_scale() >= scale  # it shrinks when a step was left out
                tried += 1
    assert 0 < steps < tried
    result = run(with_bz, precision="fp16", accumulate_batches=window, clip_grad_norm=max_norm)
    assert result.global_step == steps
    assert_bit_equal(with_bz, by_hand)


class GAN(nn.Module):
    """Two networks that are trained against each other."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 6))
        self.discriminator = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))

    def discriminator_loss(self, real: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            fake = self.generator(torch.randn(len(real), 4))
        scores = self.discriminator(torch.cat([real, fake.to(real.dtype)]))
        answers = torch.cat([torch.ones(len(real), 1), torch.zeros(len(real), 1)])
        return binary_cross_entropy_with_logits(scores, answers)

    def generator_loss(self, num_samples: int) -> torch.Tensor:
        scores = self.discriminator(self.generator(torch.randn(num_samples, 4)))
        return binary_cross_entropy_with_logits(scores, torch.ones(num_samples, 1))


def gan_step(context: TrainingContext, batch: Any) -> torch.Tensor:
    """The step of a GAN as one writes it for bz."""
    gan: Any = context.model
    real, _ = batch
    context.optimizer["discriminator"].zero_grad()
    loss: torch.Tensor = gan.discriminator_loss(real)
    context.backward(loss)
    context.step_optimizer(context.optimizer["discriminator"])

    context.optimizer["generator"].zero_grad()
    context.backward(gan.generator_loss(len(real)))
    context.step_optimizer(context.optimizer["generator"])
    return loss


def make_gan_spec() -> Any:
    torch.manual_seed(7)
    gan = GAN()
    optimizers = {
        "generator": torch.optim.Adam(gan.generator.parameters(), lr=0.01, betas=(0.5, 0.999)),
        "discriminator": torch.optim.Adam(gan.discriminator.parameters(), lr=0.02, betas=(0.5, 0.999)),
    }
    return make_spec(model=gan, optimizer=optimizers, loss_fn=None, training_step=gan_step)


def test_gan_with_two_optimizers_equals_that_by_hand() -> None:
    by_hand, with_bz = make_gan_spec(), make_gan_spec()
    gan, optimizers = by_hand.model, by_hand.optimizer
    losses = []
    for loader in epochs(by_hand):
        for real, _ in loader:
            optimizers["discriminator"].zero_grad()
            loss = gan.discriminator_loss(real)
            loss.backward()
            optimizers["discriminator"].step()
            losses.append(loss.item())

            optimizers["generator"].zero_grad()
            gan.generator_loss(len(real)).backward()
            optimizers["generator"].step()
    result = run(with_bz)
    assert_bit_equal(with_bz, by_hand)
    assert result.global_step == EPOCHS * BATCHES
    assert result.training_loss == sum(losses[-BATCHES:]) / BATCHES


@pytest.mark.parametrize("setting", ["clip_grad_norm", "clip_grad_value"])
def test_clipping_of_a_gan_equals_that_by_hand(setting: str) -> None:
    clip: Any = {"clip_grad_norm": nn.utils.clip_grad_norm_, "clip_grad_value": nn.utils.clip_grad_value_}[setting]
    by_hand, with_bz = make_gan_spec(), make_gan_spec()
    gan, optimizers = by_hand.model, by_hand.optimizer
    for loader in epochs(by_hand):
        for real, _ in loader:
            optimizers["discriminator"].zero_grad()
            gan.discriminator_loss(real).backward()
            clip(gan.discriminator.parameters(), 0.01)
            optimizers["discriminator"].step()

            optimizers["generator"].zero_grad()
            gan.generator_loss(len(real)).backward()
            clip(gan.generator.parameters(), 0.01)
            optimizers["generator"].step()
    run(with_bz, **{setting: 0.01})
    assert_bit_equal(with_bz, by_hand)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_of_a_gan_equals_that_by_hand(precision: str) -> None:
    by_hand, with_bz = make_gan_spec(), make_gan_spec()
    gan, optimizers = by_hand.model, by_hand.optimizer
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16")
    for loader in epochs(by_hand):
        for real, _ in loader:
            optimizers["discriminator"].zero_grad()
            with torch.autocast("cpu", dtype=DTYPES[precision]):
                loss = gan.discriminator_loss(real)
            scaler.scale(loss).backward()
            scaler.step(optimizers["discriminator"])

            optimizers["generator"].zero_grad()
            with torch.autocast("cpu", dtype=DTYPES[precision]):
                loss = gan.generator_loss(len(real))
            scaler.scale(loss).backward()
            scaler.step(optimizers["generator"])
            scaler.update()
    run(with_bz, precision=precision)
    assert_bit_equal(with_bz, by_hand)


def test_manual_optimization_with_one_optimizer_equals_that_by_hand() -> None:
    def twice(context: TrainingContext, batch: Any) -> torch.Tensor:
        """Two steps on every batch, of which bz is not told before."""
        inputs, targets = batch
        for _ in range(2):
            context.optimizer.zero_grad()
            loss = cross_entropy(context.model(inputs), targets)
            context.backward(loss)
            context.step_optimizer(context.optimizer)
        return torch.zeros(())

    by_hand, with_bz = make_spec(), make_spec(loss_fn=None, training_step=twice, manual_optimization=True)
    for loader in epochs(by_hand):
        for inputs, targets in loader:
            for _ in range(2):
                by_hand.optimizer.zero_grad()
                by_hand.loss_fn(by_hand.model(inputs), targets).backward()
                by_hand.optimizer.step()
    run(with_bz)
    assert_bit_equal(with_bz, by_hand)
