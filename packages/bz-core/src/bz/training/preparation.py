"""What is settled before a session starts: facts about the loaders, the model on its device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bz.context import RunFacts
from bz.errors import ScriptError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import torch

    from bz.config.models import TrainingSettings
    from bz.spec import TrainingSpec


def gather_facts(
    spec: TrainingSpec,
    settings: TrainingSettings,
    device: torch.device,
    run_dir: Path | None,
    record: Mapping[str, Any],
) -> RunFacts:
    """Return the facts of a run.

    Raises:
        ScriptError: If a loader is empty or no loader.
    """
    batch_size = getattr(spec.training_loader, "batch_size", None)
    return RunFacts(
        device=device,
        epochs=settings.epochs,
        training_batches=_planned_batches(spec.training_loader, "training_loader"),
        validation_batches=_planned_batches(spec.validation_loader, "validation_loader"),
        batch_size=batch_size if isinstance(batch_size, int) else None,
        run_dir=run_dir,
        settings=record,
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
