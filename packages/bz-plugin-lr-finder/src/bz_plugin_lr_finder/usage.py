"""How a suggestion is put to use."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bz.script import LoadedScript

NAMES: Final = ("lr", "learning_rate", "base_lr", "max_lr", "initial_lr", "learningrate")


def usage(
    script: LoadedScript, base: float, rate: float, arguments: Sequence[str] = (), path: Path = Path("train.py")
) -> str:
    """Return a sentence on how to train with a learning rate.

    Args:
        script: With `build`, its hyperparameters decide; else only a change of the script helps.
        base: The learning rate that the optimizer was built with.
        rate: The one to train with.
        arguments: Those of the command line that `bz train` needs, too.
        path: The script.
    """
    key = _key_of(script, base)
    if key is not None:
        return "Train with it: " + shlex.join(["bz", "train", *arguments, "--set", f"hyperparameters.{key}={rate:.3g}"])
    [optimizer] = script.spec.optimizers
    return f"To train with it, write lr={rate:.3g} where {path.name} makes its {type(optimizer).__name__}."


def _key_of(script: LoadedScript, base: float) -> str | None:
    """Return the hyperparameter that is the learning rate of the optimizer: named like one, and of its value."""
    if not hasattr(script.module, "build"):
        return None
    found = [key for key, value in _flat(script.spec.hyperparameters) if _is_rate(key, value, base)]
    return min(found, key=lambda key: NAMES.index(_last(key)), default=None)


def _is_rate(key: str, value: object, base: float) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool) or _last(key) not in NAMES:
        return False
    return math.isclose(value, base, rel_tol=1e-6)


def _last(key: str) -> str:
    return key.rpartition(".")[2].lower()


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
