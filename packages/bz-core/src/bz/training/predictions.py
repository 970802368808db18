"""What a model predicts for a batch, as named columns with one row for each sample."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch

from bz.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bz.context import TrainingContext
    from bz.training.precision import Precision
    from bz.training.step import StepFunction

logger = logging.getLogger(__name__)

Column = torch.Tensor | list[Any]
"""A tensor whose first dimension is the sample, or a list of texts or numbers."""

INDEX: Final = "index"
"""Name of the column that numbers the rows; taken."""

OUTPUT: Final = "output"
TARGET: Final = "target"


class Predictor:
    """Turns batches into columns; the model must be in eval mode, with gradients off.

    How the model is called:

    - with a `validation_step` of the user's own: by that step, whose `StepResult` has the outputs;
    - a pair `(inputs, targets)`: `model(inputs)`;
    - a mapping: `model(**batch)`;
    - a tensor, or a sequence of one: `model(inputs)`.

    Args:
        steps: The user's own steps; the first that returns something wins.
        precision: Wraps the forward pass, as in training.
    """

    def __init__(self, steps: Sequence[StepFunction], precision: Precision) -> None:
        self._steps = tuple(steps)
        self._precision = precision
        self._left_out: set[str] = set()

    def columns(self, context: TrainingContext, batch: Any) -> dict[str, Column]:
        """Return the outputs of one batch by name, and the targets if there are any; all of one length, on the CPU.

        A single output is called `output`, the targets `target`. Mappings, dataclasses and tuples
        become several columns; single numbers, such as a loss, and what is no tensor are left out.

        Raises:
            TrainingError: If there is nothing to write, or columns have different lengths.
        """
        outputs, targets = self.predict(context, batch)
        named = dict(_named(self._columns_of(outputs, ""), OUTPUT, is_target=False))
        if not named:
            raise TrainingError(
                f"The model's output, a {type(outputs).__name__}, holds no tensor with a row for each sample; "
                "let it return one, or write validation_step(context, batch)."
            )
        named |= _named(self._columns_of(targets, ""), TARGET, is_target=True)
        _check_lengths(named)
        return named

    def predict(self, context: TrainingContext, batch: Any) -> tuple[Any, Any]:
        """Return the outputs of a batch and its targets, or None where there are none."""
        if self._precision.is_full:
            return self._predict(context, batch)
        with self._precision.autocast():
            return self._predict(context, batch)

    def _predict(self, context: TrainingContext, batch: Any) -> tuple[Any, Any]:
        for step in self._steps:
            result = step(context, batch)
            if result is not None:
                return _outputs_of(result)
        return forward(context.model, batch)

    def _columns_of(self, value: Any, name: str) -> Iterator[tuple[str, Column]]:
        """Yield name and column for everything in a value that has a row for each sample."""
        if value is None:
            return
        if isinstance(value, torch.Tensor) and value.dim():
            # A copy: the memory may be written to again before the file is.
            yield name, value.detach().to("cpu", copy=True)
        elif _is_plain_list(value):
            yield name, list(value)
        elif (parts := _parts(value)) is not None:
            for key, item in parts:
                yield from self._columns_of(item, f"{name}_{key}" if name else key)
        else:
            self._note_left_out(name, value)

    def _note_left_out(self, name: str, value: Any) -> None:
        what = "a single number" if isinstance(value, torch.Tensor | int | float) else f"a {type(value).__name__}"
        if name not in self._left_out and name != "loss":
            self._left_out.add(name)
            logger.warning("%s of the model's output is %s and is left out", repr(name) if name else "a part", what)


def forward(model: Callable[..., Any], batch: Any) -> tuple[Any, Any]:
    """Call the model with the inputs of a batch; return its outputs, and the targets or None.

    Raises:
        TrainingError: If it is not known what of the batch the model takes.
    """
    if isinstance(batch, Mapping):
        return model(**batch), batch.get("labels")
    if isinstance(batch, torch.Tensor):
        return model(batch), None
    if isinstance(batch, tuple | list) and 1 <= len(batch) <= 2:  # noqa: PLR2004 - inputs, or a pair
        return model(batch[0]), batch[1] if len(batch) > 1 else None
    what = f"a {type(batch).__name__}" + (f" of {len(batch)} items" if isinstance(batch, tuple | list) else "")
    raise TrainingError(
        f"A batch is {what}; the model is called for pairs (inputs, targets), mappings and tensors, "
        "for anything else write validation_step(context, batch)."
    )


def _outputs_of(result: Any) -> tuple[Any, Any]:
    outputs = getattr(result, "outputs", None)
    if outputs is None:
        raise TrainingError("The validation_step gave no outputs; let it return bz.StepResult(loss, outputs, targets).")
    return outputs, getattr(result, "targets", None)


def _is_plain_list(value: Any) -> bool:
    """Whether a value is a list of texts or numbers, as a loader makes of file names."""
    return (
        isinstance(value, tuple | list) and bool(value) and all(isinstance(item, str | int | float) for item in value)
    )


def _parts(value: Any) -> Iterator[tuple[str, Any]] | None:
    """Return name and part for a value of several parts, None for any other."""
    if isinstance(value, Mapping):
        return ((str(key), item) for key, item in value.items())
    if isinstance(value, tuple | list):
        names = getattr(value, "_fields", range(len(value)))
        return ((str(name), item) for name, item in zip(names, value, strict=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    return None


def _named(columns: Iterator[tuple[str, Column]], kind: str, *, is_target: bool) -> Iterator[tuple[str, Column]]:
    """Yield columns by their final names: what would be taken for a target, or for the index, says what it is."""
    for name, column in columns:
        is_taken = is_target or name in {INDEX, TARGET} or name.startswith(f"{TARGET}_") or name.isdigit()
        yield (f"{kind}_{name}" if name and is_taken else name or kind), column


def _check_lengths(columns: Mapping[str, Column]) -> None:
    first, *others = columns
    for name in others:
        if len(columns[name]) != len(columns[first]):
            raise TrainingError(
                f"{name!r} has {len(columns[name])} rows and {first!r} {len(columns[first])}; "
                "predictions need one row for each sample in each of them."
            )
