"""The settings of bz as pydantic models: names, types, ranges, defaults and their description."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, WithJsonSchema

from bz.config.redaction import redact
from bz.intervals import Interval

_DEVICE_FORM = r"[a-z][a-z0-9_]*(:[0-9]{1,4})?"
_MAX_COUNT = 1_000_000_000
_MAX_SEED = 2**63 - 1


def _check_device(device: str) -> str:
    if re.fullmatch(_DEVICE_FORM, device) is None:
        raise ValueError('must be "auto" or a device such as "cpu", "cuda", "cuda:1" or "mps"')
    return device


Device = Annotated[
    str, AfterValidator(_check_device), WithJsonSchema({"type": "string", "pattern": f"^{_DEVICE_FORM}$"})
]


class _Settings(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )


class TrainingSettings(_Settings):
    """How the training runs."""

    epochs: int = Field(default=1, ge=1, le=_MAX_COUNT)
    """Passes over the training data."""

    device: Device = "auto"
    """Where the model is trained: "auto" takes the best there is; or "cpu", "cuda", "cuda:1", "mps", "xpu"."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the forward pass; "bf16" and "fp16" use autocast, "fp16" with a gradient scaler."""

    compile: bool = False
    """Whether the model goes through `torch.compile`, which makes steps faster and the first one slow."""

    seed: int | None = Field(default=None, ge=0, le=_MAX_SEED)
    """Start of all random numbers, for runs that can be repeated; without one, each run draws its own."""

    checkpoint_interval: Literal[0] | Interval = Field(default="1 epoch", validate_default=True)
    """How often the run is saved, as in 1, "200 steps" or "10 min"; a bare number means epochs, 0 never."""

    async_checkpoint: bool = False
    """Whether checkpoints are written by a thread of their own; training waits only for a copy of the state."""

    on_nonfinite: Literal["stop", "skip", "ignore"] = "stop"
    """What a NaN or infinite loss does: "stop" the run, "skip" the step (which waits for the device), or "ignore"."""


class PluginSettings(_Settings):
    """One plugin: whether it runs, and its own settings."""

    enabled: bool = True
    """Whether the plugin runs."""

    config: dict[str, Any] = Field(default_factory=dict)
    """The settings of the plugin; `bz plugins show NAME` lists them."""


class Config(_Settings):
    """Settings of bz."""

    schema_file: str | None = Field(default=None, alias="$schema", exclude=True)
    """Where an editor finds the description of this file; `bz config schema` writes it."""

    training: TrainingSettings = TrainingSettings()
    """Epochs, device, precision, seed and checkpoints."""

    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    """What the script builds the model, the data and the optimizer from; any names."""

    metrics: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Metrics by their name in torchmetrics or their dotted path, each with its arguments."""

    plugins: dict[str, PluginSettings] = Field(default_factory=dict)
    """Plugins by name, in the order in which they run."""

    strict_plugins: bool = False
    """Whether the first failure of a plugin ends the run."""

    _written: dict[str, Any] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: Any, /) -> None:
        """Keep the settings as they were written, which `load_config` hands over as the context."""
        self._written = context or {}

    def record(self) -> dict[str, Any]:
        """Return all settings as plain values that may be written to a file or shown.

        Defaults are filled in, `${NAME}` stands as it was written, and secrets are stars.
        """
        resolved = self.model_dump()
        settings: dict[str, Any] = redact(_overlay(resolved, self._written), keep_references=True)
        return settings


def _overlay(resolved: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """Return `resolved` with the values of `written` where both have the key."""
    return {key: _overlay_value(value, written.get(key, value)) for key, value in resolved.items()}


def _overlay_value(resolved: Any, written: Any) -> Any:
    if isinstance(resolved, dict) and isinstance(written, dict):
        return _overlay(resolved, written)
    return written
