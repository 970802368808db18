"""Gradients accumulated over small batches are those of one big batch, also where the last window is a smaller one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from bz import StepResult, Trainer, TrainingContext, TrainingSpec
from bz.config import TrainingSettings
from bz.testing import RecordingPlugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch.utils.data import Dataset

NUM_SAMPLES = 110  # 32, 32, 32 and 14 in big batches; the last of the small ones holds 6
EPOCHS = 3
FLOAT_ERROR = {torch.float32: 1e-6, torch.float64: 2e-15}
"""The largest difference accepted, where gradients are up to 0.4 and weights up to 1."""


class Stream(IterableDataset[Any]):
    """A data set without a length, in an order of its own in every epoch."""

    def __init__(self, data: TensorDataset) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Any]:
        for index in torch.randperm(NUM_SAMPLES).tolist():
            yield self.data[index]


def make_spec(dtype: torch.dtype, batch_size: int, *, has_length: bool) -> TrainingSpec:
    torch.manual_seed(7)
    data = TensorDataset(torch.randn(NUM_SAMPLES, 6, dtype=dtype), torch.randint(0, 3, (NUM_SAMPLES,)))
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 3)).to(dtype)
    shuffled = DataLoader(data, batch_size, shuffle=True)
    return TrainingSpec(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9),
        loss_fn=nn.CrossEntropyLoss(),
        training_loader=shuffled if has_length else DataLoader(Stream(data), batch_size),
    )


def flat(tensors: Iterable[torch.Tensor | None]) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in tensors if one is not None])


def trained(spec: TrainingSpec, **settings: Any) -> list[torch.Tensor]:
    """Train, and return the gradients of each optimizer step and, last, the weights, each as one tensor."""
    gradients: list[torch.Tensor] = []

    def look(hook: str, context: TrainingContext) -> None:
        # The step that ends a loader without a length is made after its last batch.
        if hook in {"end_training_batch", "end_training_loop"} and context.global_step > len(gradients):
            gradients.append(flat(one.grad for one in context.model.parameters()))

    torch.manual_seed(11)
    checked = {"epochs": EPOCHS, "checkpoint_interval": 0, "device": "cpu", **settings}
    trainer = Trainer(strict_plugins=True)
    trainer.add_plugin(RecordingPlugin(look))
    result = trainer.run(spec, TrainingSettings.model_validate(checked))
    assert result.global_step == len(gradients)
    return [*gradients, flat(spec.model.parameters())]


def worst_difference(ones: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    return max(float((one - other).abs().max()) for one, other in zip(ones, others, strict=True))


@pytest.mark.parametrize("has_length", [True, False], ids=["length", "stream"])
@pytest.mark.parametrize("dtype", FLOAT_ERROR, ids=str)
def test_four_times_eight_equals_once_thirty_two(dtype: torch.dtype, *, has_length: bool) -> None:
    big = trained(make_spec(dtype, 32, has_length=has_length))
    small = trained(make_spec(dtype, 8, has_length=has_length), accumulate_batches=4)
    assert len(big) == EPOCHS * 4 + 1
    assert worst_difference(big, small) < FLOAT_ERROR[dtype]


def test_means_of_windows_differ_where_the_last_batch_is_smaller() -> None:
    """The usual `loss / num_batches` weighs the 6 samples of the last batch as if they were 8."""
    spec = make_spec(torch.float64, 8, has_length=True)
    optimizer, loss_fn = spec.optimizers[0], nn.CrossEntropyLoss()
    torch.manual_seed(11)
    for _ in range(EPOCHS):
        for index, (inputs, targets) in enumerate(spec.training_loader):
            (loss_fn(spec.model(inputs), targets) / 4).backward()
            if index % 4 == 3 or index == 13:
                optimizer.step()
                optimizer.zero_grad()
    weights = flat(spec.model.parameters())
    big = trained(make_spec(torch.float64, 32, has_length=True))
    assert worst_difference(big[-1:], [weights]) > 0.1


class Padded(nn.Module):
    """Says a class for each token of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Embedding(11, 16), nn.Tanh(), nn.Linear(16, 11))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(tokens)
        return logits


def token_loss(context: TrainingContext, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean loss over the tokens that are no padding, and their number."""
    tokens, targets = batch
    loss = cross_entropy(context.model(tokens).flatten(0, 1), targets.flatten(), ignore_index=-1)
    return loss, (targets != -1).sum()


def weighted_by_a_tensor(context: TrainingContext, batch: Any) -> StepResult:
    loss, num_tokens = token_loss(context, batch)
    return StepResult(loss, weight=num_tokens)


def weighted_by_a_number(context: TrainingContext, batch: Any) -> StepResult:
    loss, num_tokens = token_loss(context, batch)
    return StepResult(loss, weight=int(num_tokens))


def weighted_by_samples(context: TrainingContext, batch: Any) -> StepResult:
    return StepResult(token_loss(context, batch)[0])


def make_token_spec(batch_size: int, step: Callable[[TrainingContext, Any], StepResult]) -> TrainingSpec:
    """Return a spec of sequences of 2 to 20 tokens, padded to 20."""
    torch.manual_seed(7)
    tokens = torch.randint(0, 11, (NUM_SAMPLES, 20))
    lengths = torch.randint(2, 21, (NUM_SAMPLES, 1))
    targets = torch.where(torch.arange(20) < lengths, (tokens + 1) % 11, -1)
    model = Padded().double()
    data: Dataset[Any] = TensorDataset(tokens, targets)
    return TrainingSpec(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
        loss_fn=None,
        training_loader=DataLoader(data, batch_size, shuffle=True),
        training_step=step,
    )


@pytest.mark.parametrize("step", [weighted_by_a_tensor, weighted_by_a_number])
def test_means_over_tokens_count_with_their_number(step: Callable[[TrainingContext, Any], StepResult]) -> None:
    big = trained(make_token_spec(32, step))
    small = trained(make_token_spec(8, step), accumulate_batches=4)
    by_samples = trained(make_token_spec(8, weighted_by_samples), accumulate_batches=4)
    assert worst_difference(big, small) < FLOAT_ERROR[torch.float64]
    assert worst_difference(big, by_samples) > 1e-4


def test_batch_that_is_skipped_leaves_the_mean_of_the_others() -> None:
    """In a window of 32 samples, 8 of them not finite, the step is that of the other 24."""

    def spoilt(context: TrainingContext, batch: Any) -> torch.Tensor:
        inputs, targets = batch
        loss = cross_entropy(context.model(inputs), targets)
        return loss * float("nan") if context.batch_index == 2 else loss

    with_bz, by_hand = make_spec(torch.float64, 8, has_length=True), make_spec(torch.float64, 8, has_length=True)
    with_bz.training_step = spoilt
    torch.manual_seed(11)
    batches = [batch for index, batch in enumerate(by_hand.training_loader) if index in {0, 1, 3}]
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    expected = torch.autograd.grad(cross_entropy(by_hand.model(inputs), targets), list(by_hand.model.parameters()))
    gradients = trained(with_bz, epochs=1, accumulate_batches=4, on_nonfinite="skip")
    assert worst_difference(gradients[:1], [flat(expected)]) < 1e-14
