"""The average of a model's weights: copies of its tensors, beside the model.

The arithmetic is that of `torch.optim.swa_utils`. Its `AveragedModel` is not used, although the
numbers are those that it gives: it copies the whole module, which not every module allows, it waits
for the device at each update, and it averages counters of batches, which are no weights.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    AverageFunction = Callable[[list[torch.Tensor], list[torch.Tensor], torch.Tensor], None]


class _Place(NamedTuple):
    """Where a model has a tensor: it is looked up each time, since a model may put another one there."""

    module: torch.nn.Module
    attribute: str

    def tensor(self) -> torch.Tensor:
        tensor: torch.Tensor = getattr(self.module, self.attribute)
        return tensor.detach()


class _Group(NamedTuple):
    """Tensors that one call works on.

    Attributes:
        places: Where the model has its own.
        copies: Ours, in the same order.
    """

    places: list[_Place]
    copies: list[torch.Tensor]

    def tensors(self) -> list[torch.Tensor]:
        """Return those of the model as they are now."""
        return [place.tensor() for place in self.places]


class WeightAverage:
    """The average of the tensors in a model's `state_dict()`.

    Floating point parameters are averaged, one call for all of a dtype and device. All else, such as
    integer buffers, is taken as it is at each time. Nothing waits for the device.

    Args:
        model: Whose tensors are averaged; not changed.
        function: Of `torch.optim.swa_utils`: averages a list of tensors into another one in place.
        with_buffers: Whether floating point buffers are averaged, too.

    Attributes:
        weights: The average by the names of `model.state_dict()`; written in place by `add`.
        count: How often weights were added.
    """

    def __init__(self, model: torch.nn.Module, function: AverageFunction, *, with_buffers: bool) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self.count = 0
        self._function = function
        self._averaged: list[_Group] = []
        self._taken = _Group([], [])
        self._copy(model, with_buffers=with_buffers)

    def _copy(self, model: torch.nn.Module, *, with_buffers: bool) -> None:
        groups: defaultdict[tuple[Any, ...], _Group] = defaultdict(lambda: _Group([], []))
        copies: dict[int, torch.Tensor] = {}
        names = model.state_dict().keys()
        for name, place, is_buffer in _places(model):
            if name not in names:
                continue
            live = getattr(place.module, place.attribute)
            if id(live) not in copies:  # tied weights are one tensor under several names
                copies[id(live)] = copy = live.detach().clone()
                is_averaged = _is_real_or_complex(copy) and (with_buffers or not is_buffer)
                group = groups[copy.device, copy.dtype] if is_averaged else self._taken
                group.places.append(place)
                group.copies.append(copy)
            self.weights[name] = copies[id(live)]
        self._averaged.extend(groups.values())

    def add(self) -> None:
        """Add the model's weights as they are now; the first ones are the average so far."""
        import torch

        with torch.no_grad():
            count = torch.tensor(self.count, device="cpu")  # where it can be read without waiting
            for group in self._averaged:
                if self.count:
                    self._function(group.copies, group.tensors(), count)
                else:
                    torch._foreach_copy_(group.copies, group.tensors())
            if self._taken.copies:
                torch._foreach_copy_(self._taken.copies, self._taken.tensors())
        self.count += 1

    def restore(self, weights: Mapping[str, torch.Tensor], count: int) -> None:
        """Go on from a saved average; a name that it lacks keeps the model's weights."""
        for name, copy in self.weights.items():
            if name in weights:
                copy.copy_(weights[name])
        self.count = count


def _places(model: torch.nn.Module) -> Iterator[tuple[str, _Place, bool]]:
    """Yield name, place and whether it is a buffer, for each tensor of a model; shared ones at each of their places."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        options: dict[str, Any] = {"recurse": False, "remove_duplicate": False}
        parameters = ((name, False) for name, _ in module.named_parameters(**options))
        buffers = ((name, True) for name, _ in module.named_buffers(**options))
        for name, is_buffer in itertools.chain(parameters, buffers):
            yield f"{prefix}.{name}".lstrip("."), _Place(module, name), is_buffer


def _is_real_or_complex(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
