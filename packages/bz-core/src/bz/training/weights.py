"""Weights that take the place of a model's own for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


def check_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that are not the model's.

    Raises:
        ValueError: With the first name that the model does not have, or whose shape is another.
    """
    own = model.state_dict()
    for name, tensor in weights.items():
        if name not in own:
            raise ValueError(f"the model has no {name!r}")
        if own[name].shape != tensor.shape:
            raise ValueError(f"{name!r} is {tuple(tensor.shape)}, in the model {tuple(own[name].shape)}")


@contextmanager
def swapped_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor] | None) -> Iterator[None]:
    """Give the model other weights, and afterwards its own again, bit by bit.

    Args:
        model: Changed in place, so that an optimizer keeps its parameters.
        weights: By the names of `model.state_dict()`; those that are not named stay. None for no change.
    """
    if weights is None:
        yield
        return
    own = model.state_dict()
    kept = {name: own[name].clone() for name in weights}
    _copy(own, weights)
    try:
        yield
    finally:
        _copy(own, kept)


@torch.no_grad()
def _copy(own: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in weights.items():
        own[name].copy_(tensor)
