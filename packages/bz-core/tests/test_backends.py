"""Switches of torch, and random numbers of loader workers."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from bz.testing import RecordingPlugin, tiny_spec, train

if TYPE_CHECKING:
    from collections.abc import Callable

if TYPE_CHECKING:
    from bz import TrainingContext


def switches() -> tuple[bool, ...]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return torch.are_deterministic_algorithms_enabled(), matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"deterministic": True}, (True, False, True, False)),
        ({"tf32": True}, (False, True, True, False)),
        ({"tf32": False}, (False, False, False, False)),
        ({}, (False, False, True, False)),
    ],
)
def test_switches_hold_for_the_session_and_are_put_back(settings: dict[str, Any], expected: tuple[bool, ...]) -> None:
    before, seen = switches(), []
    train(tiny_spec(), RecordingPlugin(lambda *_: seen.append(switches())), epochs=1, **settings)
    assert set(seen) == {expected}
    assert switches() == before == (False, False, True, False)


def test_algorithm_that_is_not_deterministic_is_refused_with_torchs_own_words() -> None:
    def step(context: TrainingContext, batch: Any) -> torch.Tensor:
        scattered = torch.zeros(2, 4).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)
        loss: torch.Tensor = context.model(scattered).sum()
        return loss

    spec = tiny_spec(training_step=step)
    train(spec, epochs=1)
    with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
        train(spec, epochs=1, deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()


class Noise(Dataset[torch.Tensor]):
    """Draws from every generator that a data set may use."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([random.random(), float(np.random.rand()), float(torch.rand(()))], dtype=torch.float64)


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_draw_numbers_of_their_own_that_the_seed_decides(persistent: bool) -> None:  # noqa: FBT001
    def drawn(seed: int) -> list[list[float]]:
        batches: list[list[float]] = []

        def step(context: TrainingContext, batch: torch.Tensor) -> torch.Tensor:
            batches.extend(batch.tolist())
            loss: torch.Tensor = context.model(batch.float().mean() * torch.ones(1, 4)).sum()
            return loss

        loader = DataLoader(Noise(), 1, num_workers=2, persistent_workers=persistent)
        train(tiny_spec(training_loader=loader, validation_loader=None, training_step=step), epochs=2, seed=seed)
        return batches

    first = drawn(1)
    assert drawn(1) == first
    assert drawn(2) != first
    for column in zip(*first, strict=True):
        assert len(set(column)) == 8  # no worker, and no epoch, repeats another


class Wrapped(torch.nn.Module):
    """A model with a forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = tiny_spec().model

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layers(inputs)
        return outputs


@pytest.mark.parametrize("make", [Wrapped, lambda: tiny_spec().model])
def test_model_is_compiled_with_the_arguments_and_keeps_its_keys(make: Callable[[], torch.nn.Module]) -> None:
    calls = []

    def backend(graph: torch.fx.GraphModule, _inputs: Any, **options: Any) -> Any:
        calls.append(options)
        return graph.forward

    torch._dynamo.reset()
    torch._dynamo.register_backend(name="bz_test_backend")(backend)
    try:
        model = make()
        keys = list(model.state_dict())
        spec = tiny_spec(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
        train(spec, epochs=1, compile={"backend": "bz_test_backend", "fullgraph": True, "options": {"depth": 2}})
    finally:
        del torch._dynamo.backends.registry._COMPILER_FNS["bz_test_backend"]
    assert calls
    assert all(call["options"]["depth"] == 2 for call in calls)
    assert list(model.state_dict()) == keys


def test_compiled_model_learns_what_a_plain_one_learns() -> None:
    plain, compiled = tiny_spec(), tiny_spec()
    torch._dynamo.reset()
    train(plain, epochs=2, seed=1)
    train(compiled, epochs=2, seed=1, compile={"backend": "aot_eager"})
    for one, other in zip(plain.model.parameters(), compiled.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)
