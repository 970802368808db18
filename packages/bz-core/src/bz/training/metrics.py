"""Metrics of one phase: built from the settings, updated per batch, computed when read."""

from __future__ import annotations

import copy
import importlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from bz.errors import ConfigError, TrainingError, suggestion
from bz.training.joining import MOST_BATCHES, WaitingBatches, joins_batches

if TYPE_CHECKING:
    from bz.spec import Metric


class MetricSet:
    """The metrics of training or of validation, each a copy of its own.

    Values stay on the device until `values` is called, which waits for it and remembers the
    numbers until the next batch. Metrics that join batches take them in a few at a time.
    """

    def __init__(self, metrics: Mapping[str, Metric], device: torch.device) -> None:
        self._metrics = {name: _on_device(copy.deepcopy(metric), device) for name, metric in metrics.items()}
        self._joining = [metric for metric in self._metrics.values() if joins_batches(metric)]
        self._others = [metric for metric in self._metrics.values() if not joins_batches(metric)]
        self._waiting = WaitingBatches()
        self._has_batches = False
        self._values: dict[str, float] | None = {}

    def __bool__(self) -> bool:
        return bool(self._metrics)

    def update(self, outputs: Any, targets: Any) -> None:
        """Take in one batch, at once or with some that follow.

        Raises:
            TrainingError: If the step gave no outputs or targets to compare.
        """
        if outputs is None or targets is None:
            message = "Metrics need outputs and targets; let the step return bz.StepResult(loss, outputs, targets)."
            raise TrainingError(message)
        self._has_batches = True
        self._values = None
        if self._others:
            _update(self._others, outputs, targets)
        if not self._joining:
            return
        num_waiting = self._waiting.add(outputs, targets)
        if num_waiting in {0, MOST_BATCHES}:
            self._take_in_waiting()
        if num_waiting == 0:
            _update(self._joining, outputs, targets)

    def _take_in_waiting(self) -> None:
        """Update with what waits. After an error it waits on: who asked may be a plugin, the run has to hear of it."""
        for outputs, targets in self._waiting.joined():
            _update(self._joining, outputs, targets)
        self._waiting.clear()

    def values(self) -> dict[str, float]:
        """Return name to value over the batches so far; empty before the first."""
        self._take_in_waiting()
        if self._values is None:
            computed = ((name, metric.compute()) for name, metric in self._metrics.items())
            self._values = {key: number for name, value in computed for key, number in _numbers(name, value)}
        return dict(self._values)

    def reset(self) -> None:
        """Forget all batches."""
        for metric in self._metrics.values() if self._has_batches else ():
            metric.reset()
        self._waiting.clear()
        self._has_batches, self._values = False, {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every metric inside an epoch, as plain values and tensors."""
        self._take_in_waiting()
        states = {name: _metric_state(metric) for name, metric in self._metrics.items()}
        return {"has_batches": self._has_batches, "metrics": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; metrics that it does not know stay as they are."""
        for name, metric in self._metrics.items():
            if name in state["metrics"]:
                _load_metric_state(metric, state["metrics"][name])
        self._waiting.clear()
        self._has_batches = state["has_batches"]
        self._values = None if self._has_batches else {}


@torch.no_grad()
def _update(metrics: Iterable[Metric], outputs: Any, targets: Any) -> None:
    outputs = outputs.detach() if isinstance(outputs, torch.Tensor) else outputs
    for metric in metrics:
        metric.update(outputs, targets)


def _on_device(metric: Metric, device: torch.device) -> Metric:
    move = getattr(metric, "to", None)
    return move(device) if callable(move) else metric


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yield name and number; a mapping or a vector, such as one value per class, gives several."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(str(key), item)
    elif isinstance(value, torch.Tensor) and value.dim() > 0 and value.numel() != 1:
        for index, item in enumerate(value.flatten().tolist()):
            yield f"{name}_{index}", float(item)
    else:
        yield name, float(value)


def _metric_state(metric: object) -> dict[str, Any]:
    """Return copies of a metric's attributes that are plain values or tensors, and those of metrics inside it."""
    attributes = {name: copy.deepcopy(value) for name, value in vars(metric).items() if _is_plain(value)}
    modules = getattr(metric, "_modules", None) or {}
    return {"attributes": attributes, "modules": {name: _metric_state(module) for name, module in modules.items()}}


def _load_metric_state(metric: object, state: Mapping[str, Any]) -> None:
    vars(metric).update(state["attributes"])
    for name, module in (getattr(metric, "_modules", None) or {}).items():
        if name in state["modules"]:
            _load_metric_state(module, state["modules"][name])


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return type(value) in {int, float, bool, str, type(None)} or type(value) is torch.Tensor


def check_metrics(metrics: Mapping[str, Any]) -> None:
    """Refuse what is no metric.

    Raises:
        ConfigError: With the name, and the methods that are missing.
    """
    for name, metric in metrics.items():
        missing = [method for method in ("update", "compute", "reset") if not callable(getattr(metric, method, None))]
        if missing or isinstance(metric, type):
            what = f"the class {metric.__name__}" if isinstance(metric, type) else f"a {type(metric).__name__}"
            message = f"Metric {name!r} is {what}; a metric is an object with update, compute and reset."
            raise ConfigError(message, option=f"metrics.{name}")


def build_metrics(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Metric]:
    """Return the metrics that the settings name.

    Args:
        settings: The name of a torchmetrics class (`accuracy`, `F1Score`) or a dotted path to a
            class, each with its keyword arguments.

    Raises:
        ConfigError: If torchmetrics is needed and not installed, a name is unknown, or the
            arguments are not accepted.
    """
    return {name.rpartition(".")[2]: _build_metric(name, dict(arguments)) for name, arguments in settings.items()}


def _build_metric(name: str, arguments: dict[str, Any]) -> Metric:
    option = f"metrics.{name}"
    kind = _import_class(name, option) if "." in name else _torchmetrics_class(name, option)
    try:
        metric: Metric = kind(**arguments)
    except (TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(
            f"`{option}`: {kind.__name__} does not accept its arguments: {text}", option=option
        ) from error
    check_metrics({name: metric})
    return metric


def _import_class(path: str, option: str) -> Any:
    module_name, _, class_name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"`{option}` cannot be imported: {error}.", option=option) from error


def _torchmetrics_class(name: str, option: str) -> Any:
    if importlib.util.find_spec("torchmetrics") is None:
        message = f"`{option}` needs torchmetrics; install it with: pip install 'bz-core[metrics]'"
        raise ConfigError(message, option=option)
    torchmetrics: Any = importlib.import_module("torchmetrics")
    known = {
        _squeezed(known): known for known in torchmetrics.__all__ if isinstance(getattr(torchmetrics, known), type)
    }
    if _squeezed(name) not in known:
        hint = suggestion(_squeezed(name), known)
        message = (
            f"`{option}` is no metric of torchmetrics; name one of its classes, or the dotted path of your own.{hint}"
        )
        raise ConfigError(message, option=option)
    return getattr(torchmetrics, known[_squeezed(name)])


def _squeezed(name: str) -> str:
    return name.replace("_", "").lower()
