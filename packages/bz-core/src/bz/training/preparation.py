"""What is settled before a session starts: facts about the loaders, the model on its device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from bz.errors import ScriptError
from bz.progress import RunFacts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bz.config.models import TrainingSettings
    from bz.spec import TrainingSpec


def check_spec(spec: TrainingSpec) -> None:
    """Refuse what cannot be trained at all.

    Raises:
        ScriptError: If the model, the optimizer or the loss function is not what its name says.
    """
    expected: tuple[tuple[str, object, Any, str], ...] = (
        ("model", spec.model, torch.nn.Module, "a torch.nn.Module"),
        ("optimizer", spec.optimizer, torch.optim.Optimizer, "a torch.optim.Optimizer, built over model.parameters()"),
        ("loss_fn", spec.loss_fn, Callable | None, "callable as loss_fn(outputs, targets)"),
    )
    for name, value, kind, what in expected:
        if isinstance(value, type) or not isinstance(value, kind):
            given = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
            raise ScriptError(f"The {name} is {given}; it must be {what}.")


def gather_facts(spec: TrainingSpec, settings: TrainingSettings, device: torch.device) -> RunFacts:
    """Return the facts that follow from the spec and the settings.

    Raises:
        ScriptError: If the model, the optimizer, the loss function or a loader is not what its name
            says, or a loader is empty.
    """
    check_spec(spec)
    batch_size = getattr(spec.training_loader, "batch_size", None)
    return RunFacts(
        device=device,
        epochs=settings.epochs,
        training_batches=_planned_batches(spec.training_loader, "training_loader"),
        validation_batches=_planned_batches(spec.validation_loader, "validation_loader"),
        batch_size=batch_size if isinstance(batch_size, int) else None,
    )


def _planned_batches(loader: Iterable[Any] | None, name: str) -> int | None:
    """Return the length of a loader, or None when it has none.

    Raises:
        ScriptError: If it is empty or no loader.
    """
    if loader is None:
        return None
    if not hasattr(loader, "__iter__"):
        raise ScriptError(f"The {name} is a {type(loader).__name__}; it must be iterable, as a DataLoader is.")
    try:
        length = len(loader)  # type: ignore[arg-type]  # some loaders have a length
    except TypeError:
        return None
    if length == 0:
        raise ScriptError(f"The {name} is empty: it has no batches; look at its dataset, batch_size and drop_last.")
    return length


def prepare_model(spec: TrainingSpec, settings: TrainingSettings, device: torch.device) -> None:
    """Move the model to its device, and compile it in place if the settings say so."""
    spec.model.to(device)
    if settings.compile:
        spec.model.compile()
