"""What happens with one batch: the default steps, and the user's own in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from bz.errors import TrainingError
from bz.spec import StepResult

if TYPE_CHECKING:
    from bz.context import TrainingContext
    from bz.spec import TrainingSpec
    from bz.training.precision import Precision

StepFunction = Callable[["TrainingContext", Any], Any]

CheckedResult = tuple[torch.Tensor, Any, Any, float | torch.Tensor | None]
"""Loss, outputs, targets and weight: a `StepResult` whose loss is a scalar, or a plain tuple, which is sooner made."""


def default_step(spec: TrainingSpec) -> Callable[[TrainingContext, Any], CheckedResult]:
    """Return the step for pairs `(inputs, targets)`, and for mappings that the model takes as keywords.

    It raises a TrainingError if a batch is neither, or nothing computes a loss that is a scalar. Of
    pairs only the first loss is checked: the same function computes the others.
    """
    model, loss_fn = spec.model, spec.loss_fn
    is_scalar = False

    def step(_context: TrainingContext, batch: Any) -> CheckedResult:
        nonlocal is_scalar
        if isinstance(batch, (tuple, list)) and len(batch) == 2:  # noqa: PLR2004 - a pair
            inputs, targets = batch
            outputs = model(inputs)
            if loss_fn is None:
                raise TrainingError("There is no loss_fn; give one, or write training_step(context, batch).")
            loss = loss_fn(outputs, targets)
            if is_scalar:
                return loss, outputs, targets, None
            checked = _checked(StepResult(loss, outputs, targets))
            is_scalar = checked.loss is loss
            return checked
        if isinstance(batch, Mapping):
            return _checked(_mapping_step(model, batch))
        message = (
            f"A batch is {_describe(batch)}; bz trains on pairs (inputs, targets) and on mappings, "
            "for anything else write training_step(context, batch)."
        )
        raise TrainingError(message)

    return step


def _mapping_step(model: torch.nn.Module, batch: Mapping[str, Any]) -> StepResult:
    """Return the loss that the model itself computes, as models of the transformers package do."""
    outputs = model(**batch)
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    if loss is None:
        raise TrainingError(
            f"The batch is a mapping and the model's output, a {type(outputs).__name__}, has no `loss`; "
            "let the model return one, or write training_step(context, batch)."
        )
    predictions = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    return StepResult(loss, outputs if predictions is None else predictions, batch.get("labels"))


def _describe(batch: object) -> str:
    if isinstance(batch, torch.Tensor):
        return f"a tensor of shape {tuple(batch.shape)}"
    if isinstance(batch, tuple | list):
        return f"a {type(batch).__name__} of {len(batch)} items"
    return f"a {type(batch).__name__}"


def make_step(
    spec: TrainingSpec, own_steps: Sequence[StepFunction], precision: Precision
) -> Callable[[TrainingContext, Any], CheckedResult]:
    """Return the function that turns a batch into a checked result.

    Args:
        spec: Whose model and loss function the default step calls.
        own_steps: The user's steps; the first that returns something wins, else the default.
        precision: Wraps the forward pass.
    """
    default = default_step(spec)
    check = _checked_and_detached if spec.steps_itself else _checked

    def first_result(context: TrainingContext, batch: Any) -> CheckedResult:
        for step in own_steps:
            result = step(context, batch)
            if result is not None:
                return check(result)
        return default(context, batch)

    def mixed(context: TrainingContext, batch: Any) -> CheckedResult:
        with precision.autocast():
            return first_result(context, batch)

    if not precision.is_full:
        return mixed
    return first_result if own_steps else default


def step_of_script(step: StepFunction, name: str) -> StepFunction:
    """Return the step, which then must return something: a forgotten `return` would leave batches to the default.

    Args:
        step: Of the script itself; one of a plugin may leave a batch to others.
        name: What it is called there.
    """

    def call(context: TrainingContext, batch: Any) -> Any:
        result = step(context, batch)
        if result is None:
            raise TrainingError(f"The {name} returned nothing; let it end with `return loss`.")
        return result

    return call


def _checked(result: Any) -> StepResult:
    """Return the result of a step in one form, its loss a 0-d tensor.

    Raises:
        TrainingError: If the loss is no scalar tensor.
    """
    checked = result if isinstance(result, StepResult) else StepResult(result)
    loss = checked.loss
    if not isinstance(loss, torch.Tensor):
        raise TrainingError(f"The loss is a {type(loss).__name__}; it must be a scalar tensor.")
    if loss.dim():
        if loss.numel() != 1:
            message = f"The loss has shape {tuple(loss.shape)}; it must be a scalar, for example the mean: loss.mean()."
            raise TrainingError(message)
        return checked._replace(loss=loss.reshape(()))
    return checked


def _checked_and_detached(result: Any) -> StepResult:
    """Return the result of a step that has computed its gradients: what else its loss came from need not stay."""
    checked = _checked(result)
    return checked._replace(loss=checked.loss.detach())
