"""What is settled before a session starts: facts about the loaders, the model on its device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import torch

from bz.errors import ConfigError, ScriptError
from bz.progress import RunFacts
from bz.training.device import reads_wait
from bz.training.overfitting import fixed_batches

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
        *((name, one, torch.optim.Optimizer, _AN_OPTIMIZER) for name, one in _named_optimizers(spec)),
        ("loss_fn", spec.loss_fn, Callable | None, "callable as loss_fn(outputs, targets)"),
    )
    for name, value, kind, what in expected:
        if isinstance(value, type) or not isinstance(value, kind):
            given = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
            raise ScriptError(f"The {name} is {given}; it must be {what}.")


_AN_OPTIMIZER: Final = "a torch.optim.Optimizer, built over model.parameters()"


def _named_optimizers(spec: TrainingSpec) -> Iterator[tuple[str, object]]:
    if isinstance(spec.optimizer, Mapping):
        yield from ((f"optimizer {name!r}", one) for name, one in spec.optimizer.items())
    else:
        yield "optimizer", spec.optimizer


def gather_facts(spec: TrainingSpec, settings: TrainingSettings, device: torch.device) -> RunFacts:
    """Return the facts that follow from the spec and the settings.

    Raises:
        ScriptError: If the model, the optimizer, the loss function or a loader is not what its name
            says, or a loader is empty.
    """
    check_spec(spec)
    batch_size = getattr(spec.training_loader, "batch_size", None)
    training_batches = _limited(_num_batches(spec.training_loader, "training_loader"), settings.limit_train_batches)
    validation_loader = spec.validation_loader if _validates(settings) else None
    validation_batches = _num_batches(validation_loader, "validation_loader")
    if settings.overfit_batches is not None:
        training_batches = _limited(training_batches, settings.overfit_batches)
        validation_batches = None if validation_loader is None else training_batches
    return RunFacts(
        device=device,
        reads_wait=reads_wait(device),
        epochs=_planned_epochs(settings, training_batches),
        max_steps=settings.max_steps,
        max_seconds=None if settings.max_time is None else settings.max_time.seconds,
        clip_grad_norm=settings.clip_grad_norm,
        training_batches=training_batches,
        validation_batches=_limited(validation_batches, settings.limit_validation_batches),
        batch_size=batch_size if isinstance(batch_size, int) else None,
    )


def _validates(settings: TrainingSettings) -> bool:
    return settings.limit_validation_batches != 0 and settings.validation_interval != 0


def _limited(count: int | None, limit: int | None) -> int | None:
    """Return the number of batches of a loader of which no more than `limit` are used."""
    return count if count is None or limit is None else min(count, limit)


def _planned_epochs(settings: TrainingSettings, training_batches: int | None) -> int | None:
    limit = settings.epoch_limit
    if settings.max_steps is None or training_batches is None:
        return limit
    needed = math.ceil(settings.max_steps / math.ceil(training_batches / settings.accumulate_batches))
    return needed if limit is None else min(limit, needed)


def _num_batches(loader: Iterable[Any] | None, name: str) -> int | None:
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


def prepare_spec(spec: TrainingSpec, settings: TrainingSettings) -> TrainingSpec:
    """Return the spec with the loaders that the settings leave of it.

    Raises:
        ConfigError: If a setting asks for what there is not.
    """
    if not _validates(settings):
        spec = replace(spec, validation_loader=None)
    if settings.validate_first and spec.validation_loader is None:
        raise ConfigError(
            "`training.validate_first` is on and there is nothing to validate; give a validation_loader.",
            option="training.validate_first",
        )
    if settings.overfit_batches is None:
        return spec
    batches = fixed_batches(spec.training_loader, settings.overfit_batches)
    return replace(spec, training_loader=batches, validation_loader=None if spec.validation_loader is None else batches)


def prepare_model(spec: TrainingSpec, settings: TrainingSettings, device: torch.device) -> None:
    """Move the model, and a loss function with weights, to the device; compile the model in place if it is to be."""
    spec.model.to(device)
    if isinstance(spec.loss_fn, torch.nn.Module):
        spec.loss_fn.to(device)
    if settings.compile is True:
        compile_model(spec.model, {})
    elif settings.compile:
        compile_model(spec.model, settings.compile.model_dump())


def compile_model(model: torch.nn.Module, options: dict[str, Any]) -> None:
    """Compile the model in place, so that its parameters keep their names.

    `model.compile` compiles the frames of the user's own `forward`. Where the model is one of torch's
    modules, such as `nn.Sequential`, there is none, and it would compile nothing without a word; a
    frame of bz takes its place.
    """
    if not type(model).forward.__module__.startswith("torch.nn."):
        model.compile(**options)
        return

    def forward(*args: Any, **kwargs: Any) -> Any:
        return model._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]  # noqa: SLF001 - as model.compile does

    model._compiled_call_impl = torch.compile(forward, **options)  # noqa: SLF001 - see above
