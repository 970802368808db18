"""The settings of bz as pydantic models: names, types, ranges, defaults and their description."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypedDict

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, WithJsonSchema, model_validator

from bz.config.redaction import redact
from bz.intervals import Duration, Interval

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

CountedInterval = Annotated[Interval, AfterValidator(Interval.check_counted)]


class _Settings(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )


class CompileSettings(_Settings):
    """How the model is compiled; the arguments of `torch.compile`."""

    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None = None
    """What the compiler strives for; excludes `options`."""

    fullgraph: bool = False
    """Whether a model that cannot be compiled in one piece is an error."""

    dynamic: bool | None = None
    """Whether shapes may change from batch to batch; by default found out on the way."""

    backend: str = "inductor"
    """Name of the compiler."""

    options: dict[str, str | int | float | bool] | None = None
    """What is handed on to the compiler; excludes `mode`."""

    @model_validator(mode="after")
    def _check_mode(self) -> Self:
        if self.mode is not None and self.options is not None:
            raise ValueError("must have `mode` or `options`, not both")
        return self


class TrainingSettings(_Settings):
    """How the training runs."""

    epochs: int | None = Field(default=None, ge=1, le=_MAX_COUNT)
    """Passes over the training data; by default 1, or as many as `max_steps` or `max_time` leave room for."""

    max_steps: int | None = Field(default=None, ge=1, le=_MAX_COUNT)
    """Optimizer steps after which the run is complete."""

    max_time: Duration | None = None
    """Training time after which the run is complete, as in "8 h"; that of all its sessions together."""

    limit_train_batches: int | None = Field(default=None, ge=1, le=_MAX_COUNT)
    """Training batches of an epoch; the others are left out."""

    limit_validation_batches: int | None = Field(default=None, ge=0, le=_MAX_COUNT)
    """Batches of a validation; 0 for no validation."""

    overfit_batches: int | None = Field(default=None, ge=1, le=_MAX_COUNT)
    """Trains and validates on that many training batches, always the same: a model that works learns them by heart."""

    validation_interval: Literal[0] | Interval = Field(default="1 epoch", validate_default=True)
    """How often the model is validated, as in 1, "200 steps" or "10 min"; a bare number means epochs, 0 never."""

    validate_first: bool = False
    """Whether the untrained model is validated before the first epoch."""

    device: Device = "auto"
    """Where the model is trained: "auto" takes the best there is; or "cpu", "cuda", "cuda:1", "mps", "xpu"."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the forward pass; "bf16" and "fp16" use autocast, "fp16" with a gradient scaler."""

    tf32: bool | None = None
    """Whether float32 products and convolutions on CUDA may be rounded to TensorFloat-32; null leaves that to torch."""

    compile: bool | CompileSettings = False
    """Whether the model goes through `torch.compile`, which makes steps faster and the first one slow; or how."""

    accumulate_batches: int = Field(default=1, ge=1, le=_MAX_COUNT)
    """Batches whose gradients make one optimizer step: that of one batch of all their samples."""

    clip_grad_norm: float | None = Field(default=None, gt=0)
    """The largest norm of all gradients together; larger ones are scaled down."""

    clip_grad_value: float | None = Field(default=None, gt=0)
    """The largest absolute value of each number in the gradients; larger ones are cut off."""

    scheduler_interval: CountedInterval = Field(default="1 epoch", validate_default=True)
    """How often the learning rate scheduler is stepped, as in 1 (epoch) or "1 step"."""

    scheduler_monitor: str | None = None
    """What a `ReduceLROnPlateau` watches, such as "validation_accuracy"; by default the validation or training loss."""

    seed: int | None = Field(default=None, ge=0, le=_MAX_SEED)
    """Start of all random numbers, for runs that can be repeated; without one, each run draws its own."""

    deterministic: bool = False
    """Whether torch may use only algorithms that give the same numbers each time; those without one are an error."""

    checkpoint_interval: Literal[0] | Interval = Field(default="1 epoch", validate_default=True)
    """How often the run is saved, as in 1, "200 steps" or "10 min"; a bare number means epochs, 0 never."""

    async_checkpoint: bool = False
    """Whether checkpoints are written by a thread of their own; training waits only for a copy of the state."""

    on_nonfinite: Literal["stop", "skip", "ignore"] = "stop"
    """What a NaN or infinite loss does: "stop" the run, "skip" the step (which waits for the device), or "ignore"."""

    @model_validator(mode="after")
    def _check_clipping(self) -> Self:
        if self.clip_grad_norm is not None and self.clip_grad_value is not None:
            raise ValueError("must have `clip_grad_norm` or `clip_grad_value`, not both")
        return self

    @property
    def epoch_limit(self) -> int | None:
        """The last epoch, or None if only `max_steps` or `max_time` ends the run."""
        if self.epochs is None and self.max_steps is None and self.max_time is None:
            return 1
        return self.epochs


class TrainingOptions(TypedDict, total=False):
    """The fields of `TrainingSettings` as keyword arguments, with what a script may give for each."""

    epochs: int | None
    max_steps: int | None
    max_time: str | None
    limit_train_batches: int | None
    limit_validation_batches: int | None
    overfit_batches: int | None
    validation_interval: int | str
    validate_first: bool
    device: Any
    precision: str
    tf32: bool | None
    compile: bool | Mapping[str, Any]
    accumulate_batches: int
    clip_grad_norm: float | None
    clip_grad_value: float | None
    scheduler_interval: int | str
    scheduler_monitor: str | None
    seed: int | None
    deterministic: bool
    checkpoint_interval: int | str
    async_checkpoint: bool
    on_nonfinite: str


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
