"""What is shown of the model itself: its weights and gradients as histograms, and its graph."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

BUCKETS: Final = 64


def histograms(model: torch.nn.Module) -> Iterator[Any]:
    """Yield a summary for the weights and, where there are any, the gradients of each parameter."""
    for name, parameter in model.named_parameters():
        for kind, values in (("weights", parameter), ("gradients", parameter.grad)):
            summary = None if values is None else histogram(f"{kind}/{name}", values)
            if summary is not None:
                yield summary


def histogram(tag: str, values: torch.Tensor) -> Any | None:
    """Return a summary of the finite values, or None if there are none.

    They are counted on their device; only the counts, and a few sums, come to the host.
    """
    import torch
    from torch.utils.tensorboard.summary import histogram_raw

    dense = values.detach().coalesce().values() if values.is_sparse else values.detach()
    flat = dense.float().flatten()
    finite = flat[torch.isfinite(flat)]
    if not finite.numel():
        return None
    low, high = finite.aminmax()
    width = torch.where(high > low, high - low, 1.0)
    buckets = ((finite - low) / width * BUCKETS).long().clamp(0, BUCKETS - 1)
    counts: list[int] = torch.bincount(buckets, minlength=BUCKETS).tolist()
    least, most, size, total, squares = torch.stack([low, high, width, finite.sum(), finite.square().sum()]).tolist()
    limits = [least + size * bucket / BUCKETS for bucket in range(1, BUCKETS + 1)]
    number = finite.numel()
    return histogram_raw(tag, least, most, number, total, squares, limits, counts)  # type: ignore[no-untyped-call]


def graph(model: torch.nn.Module, batch: Any) -> Any:
    """Return the graph of the model for this batch, traced on a copy so that nothing of the model moves.

    Raises:
        ValueError: If a batch is no pair of inputs and targets.
        RuntimeError: If the model cannot be traced.
    """
    import torch
    from torch.jit._trace import TracerWarning
    from torch.utils.tensorboard._pytorch_graph import graph as trace

    if not isinstance(batch, tuple | list) or len(batch) != 2:  # noqa: PLR2004 - a pair
        raise ValueError(f"The graph needs batches of (inputs, targets); this one is a {type(batch).__name__}.")
    with warnings.catch_warnings(), torch.no_grad():
        # torch announces the end of torch.jit.trace, which its own TensorBoard module calls.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)
        definition, _ = trace(copy.deepcopy(model), (batch[0],))  # type: ignore[no-untyped-call]
    return definition.SerializeToString()
