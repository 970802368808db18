"""The plugin: writes down what the hooks see as the events that TensorBoard reads."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from bz.config import check_arguments
from bz.intervals import Interval, Schedule
from bz.plugins import Plugin, hookimpl
from bz_plugin_tensorboard import drawing, hparams
from bz_plugin_tensorboard.events import EventFile, cut_back, own_sizes
from bz_plugin_tensorboard.losses import StepLosses
from bz_plugin_tensorboard.memory import device_memory
from bz_plugin_tensorboard.pending import PendingScalars

if TYPE_CHECKING:
    import torch

    from bz.context import TrainingContext

logger = logging.getLogger(__name__)


class TensorBoardConfig(BaseModel):
    """Settings of the TensorBoard plugin."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    log_dir: str | None = Field(default=None, min_length=1)
    """Folder of the events; by default the run folder, and in a script without one a new folder under `runs`."""

    log_every: int = Field(default=50, ge=1)
    """Steps from one reading of the device to the next; each step has its point on the curve all the same."""

    histograms_every: Interval | None = None
    """From one histogram of all weights and gradients to the next, such as `5 epochs` or `200 steps`; else none."""

    graph: bool = False
    """Whether the graph of the model is shown, traced once with the first batch on a copy of the model."""


class TensorBoardPlugin(Plugin):
    """Shows losses, metrics, learning rates, hyperparameters and settings in TensorBoard.

    Args:
        log_dir: Folder of the events, relative to the run folder; by default the run folder itself.
        log_every: Steps from one reading of the device to the next.
        histograms_every: From one histogram of weights and gradients to the next, such as `5 epochs`.
        graph: Whether the graph of the model is shown.

    Raises:
        ConfigError: If an argument is not accepted.
    """

    name: ClassVar[str] = "tensorboard"
    Config: ClassVar[type[BaseModel] | None] = TensorBoardConfig

    def __init__(
        self,
        log_dir: str | Path | None = None,
        log_every: int = 50,
        histograms_every: Interval | str | int | None = None,
        graph: bool = False,  # noqa: FBT001, FBT002 - a name of the settings
    ) -> None:
        settings = check_arguments(
            TensorBoardConfig,
            "TensorBoardPlugin",
            log_dir=str(log_dir) if isinstance(log_dir, Path) else log_dir,
            log_every=log_every,
            histograms_every=histograms_every,
            graph=graph,
        )
        self._log_dir = settings.log_dir
        self._log_every = settings.log_every
        self._histograms_every = settings.histograms_every
        self._shows_graph = settings.graph
        self._forget()

    def _forget(self) -> None:
        """Begin a session about which nothing is known."""
        self._file: EventFile | None = None
        self._pending = PendingScalars()
        self._state: dict[str, Any] = {}
        self._has_graph = False
        self._has_layout = False
        self._rates_step = -1
        self._losses = StepLosses()
        self._keep: Callable[[torch.Tensor], torch.Tensor | float] = float
        self._step = 0
        self._shows_norm = False
        self._histograms = None if self._histograms_every is None else Schedule(self._histograms_every)
        self._has_histograms_inside = self._histograms_every is not None and self._histograms_every.is_inside_epoch

    @hookimpl(tryfirst=True)
    def start_training_session(self, context: TrainingContext) -> None:
        """Begin the event file of a new run; that of a resumed one waits until its step is known."""
        self._forget()
        if context.resumed_from is None:
            folder = self._base_folder(context)
            self._open(context, _unused(folder), first_step=0)

    @hookimpl(tryfirst=True)
    def load_checkpoint(self, context: TrainingContext) -> None:
        """Go on with the curves: cut off what was written behind the checkpoint, and begin a further event file."""
        self._has_graph = bool(self._state.get("has_graph"))
        self._rates_step = int(self._state.get("rates_step", -1))
        self._step = self._state.get("step", context.global_step)
        self._losses = StepLosses(self._step, self._state.get("window", ()))
        folder = self._base_folder(context) / self._state.get("subfolder", "")
        cut_back(folder, self._state.get("sizes", {}))
        self._open(context, folder, first_step=context.global_step + 1)

    def _base_folder(self, context: TrainingContext) -> Path:
        if self._log_dir is not None:
            return context.output_path(self._log_dir)
        if context.run_dir is not None:
            return context.output_path("")
        self._state.setdefault("run", f"{context.started_at:%Y-%m-%d_%H-%M-%S}")
        return context.output_path(f"runs/{self._state['run']}")

    def _open(self, context: TrainingContext, folder: Path, first_step: int) -> None:
        """Make an event file that begins with what is known before the first step."""
        self._state["subfolder"] = folder.relative_to(self._base_folder(context)).as_posix()
        step = context.global_step
        self._file = EventFile(folder, first_step, lambda file: _add_beginning(file, context, step))
        self._shows_norm = context.clip_grad_norm is not None
        self._keep = _keeping(context)
        drawing.running[context] = self

    def end_training_batch(self, context: TrainingContext) -> None:
        """Keep the loss, on its device if reading waits; write the kept ones every `log_every` steps."""
        if self._file is None:
            return
        step, loss = context.global_step, context.loss
        assert loss is not None
        self._losses.add(step, self._keep(loss))
        if step != self._step:
            self._step = step
            if self._shows_norm or self._has_histograms_inside:
                self._end_step(context)
            if step % self._log_every == 0:
                self._write_due(context)
        if not self._file.has_begun:
            self._file.flush()
        if self._shows_graph and not self._has_graph:
            self._write_graph(context)

    def _end_step(self, context: TrainingContext) -> None:
        """Keep what is shown of each optimizer step beside its loss."""
        if self._shows_norm and (norm := context.grad_norm) is not None:
            self._pending.add("grad_norm", context.global_step, self._keep(norm))
        if self._has_histograms_inside:
            self._write_histograms(context)

    def end_training_loop(self, context: TrainingContext) -> None:
        """Write what is kept, and the histograms if they are due: the gradients are those of the last batch."""
        if self._step != context.global_step:  # made only when the loader turned out to have no more batches
            self._step = context.global_step
            self._end_step(context)
        if not self._has_histograms_inside:
            self._write_histograms(context)
        self._write_due(context)

    def end_validation_loop(self, context: TrainingContext) -> None:
        """Write losses and metrics of the validation, at the step that it came after."""
        if self._file is None or not context.validation_batch_count:
            return
        metrics = context.validation_metrics
        self._add_points(context, "validation", context.validation_loss, metrics)
        if not self._has_layout:
            self._has_layout = True
            self.add_summary(_joint_charts(metrics), context)
        self._file.flush()

    def end_epoch(self, context: TrainingContext) -> None:
        """Write the training losses and metrics of the epoch, at the step that ended it."""
        if self._file is None:
            return
        self._file.add_point("progress/epoch", context.global_step, context.epoch)
        self._add_points(context, "training", context.training_loss, context.training_metrics)
        self._file.flush()

    def _add_points(self, context: TrainingContext, phase: str, loss: float, metrics: Mapping[str, float]) -> None:
        assert self._file is not None
        for name, value in {"loss": loss, **metrics}.items():
            self._file.add_point(f"{name}/{phase}", context.global_step, value)

    def save_checkpoint(self, context: TrainingContext) -> None:  # noqa: ARG002 - the parameter of every hook
        """Have the events on disk as safely as the checkpoint that counts on them."""
        if self._file is not None:
            self._file.sync()

    def end_training_session(self, context: TrainingContext) -> None:
        """Write what is kept and how the run ended, and close the file; also after an error."""
        drawing.running.pop(context, None)
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            self._write_pending(file, context.global_step)
            end = hparams.session_end(context.status, context.started_at.timestamp() + context.elapsed_seconds)
            if end is not None:
                file.add(context.global_step, summary=end)
        finally:
            file.close()

    def state_dict(self) -> dict[str, Any]:
        """Write what is kept, and return how long the event files are with it: a resumed run cuts them there."""
        if self._file is None:
            return dict(self._state)
        self._write_pending(self._file)
        self._file.flush()
        histograms = None if self._histograms is None else self._histograms.state_dict()
        return self._state | {
            "sizes": own_sizes(self._file.path.parent),
            "has_graph": self._has_graph,
            "rates_step": self._rates_step,
            **self._losses.state_dict(),
            "histograms": histograms,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; `load_checkpoint` follows."""
        self._state = dict(state)
        if self._histograms is not None and state.get("histograms") is not None:
            self._histograms.load_state_dict(state["histograms"])

    def add_scalar(self, tag: str, value: float | torch.Tensor, context: TrainingContext) -> None:
        """Add a point to the curve `tag`, at the current step.

        Args:
            tag: Name of the curve; what stands before a slash makes groups.
            value: A number, or a tensor of one element on any device; it is not waited for.
            context: What the hook was given.
        """
        import torch

        if self._file is not None:
            point = torch.as_tensor(value, dtype=torch.float32, device=context.device).detach().reshape(())
            self._pending.add(tag, context.global_step, self._keep(point))

    def add_image(self, tag: str, image: Any, context: TrainingContext, *, layout: str = "CHW") -> None:
        """Add a picture, at the current step; a tensor is copied to the host, so the device is waited for.

        Args:
            tag: Name of the picture; later ones of the same name are shown behind a slider.
            image: Tensor or NumPy array, floats from 0 to 1 or uint8 from 0 to 255.
            context: What the hook was given.
            layout: Its dimensions: `CHW`, `HWC`, `HW`, or with `N` for several side by side.
        """
        from torch.utils.tensorboard import summary

        self.add_summary(summary.image(tag, image, dataformats=layout), context)  # type: ignore[no-untyped-call]

    def add_summary(self, summary: Any, context: TrainingContext) -> None:
        """Add anything else that TensorBoard shows, at the current step.

        Args:
            summary: What a function of `torch.utils.tensorboard.summary` returns, such as `text` or `pr_curve`.
            context: What the hook was given.
        """
        if self._file is not None:
            self._file.add(context.global_step, summary=summary)

    def _write_histograms(self, context: TrainingContext) -> None:
        if self._histograms is not None and self._histograms.is_due(context):
            from bz_plugin_tensorboard.model import histograms

            for summary in histograms(context.model):
                self.add_summary(summary, context)

    def _write_graph(self, context: TrainingContext) -> None:
        """Write the graph; a model that cannot be traced is reported once and not tried again."""
        from bz_plugin_tensorboard.model import graph

        self._has_graph = True
        if self._file is not None:
            self._file.add(0, graph_def=graph(context.model, context.batch))

    def _write_due(self, context: TrainingContext) -> None:
        """Write the kept points, and what is read as often: learning rates and memory."""
        if self._file is None:
            return
        self._write_pending(self._file, context.global_step)
        if self._rates_step != context.global_step:
            self._rates_step = context.global_step
            for tag, value in (*_learning_rates(context.learning_rates), *device_memory(context.device)):
                self._file.add_point(tag, context.global_step, value)
        self._file.flush()

    def _write_pending(self, file: EventFile, step: int | None = None) -> None:
        for point in (*self._losses.take(step), *self._pending.take()):
            file.add_point(point.tag, point.step, point.value, point.wall_time)


def _unused(folder: Path) -> Path:
    """Return the folder, or one in it when it holds another run's events: two runs in one would zigzag."""
    if not own_sizes(folder):
        return folder
    numbered = (folder / str(number) for number in range(2, 2**31))
    free = next(path for path in numbered if not own_sizes(path))
    logger.warning("%s holds the events of another run; this one's are in %s", folder, free)
    return free


def _keeping(context: TrainingContext) -> Callable[[torch.Tensor], torch.Tensor | float]:
    """Return what makes of a 0-d tensor something to keep without waiting: its number, or a copy on its device.

    A step that replays a captured graph writes into the same tensor again and again.
    """
    from torch import Tensor

    return Tensor.clone if context.reads_wait else Tensor.item


def _add_beginning(file: EventFile, context: TrainingContext, step: int) -> None:
    """Add with what the run was made."""
    file.add(step, summary=hparams.session_start(context.hyperparameters, context.started_at.timestamp()))
    if context.settings:
        file.add(step, summary=_settings_text(context.settings))


def _learning_rates(rates: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Yield tag and value; one of several learning rates by the name of its optimizer or parameter group."""
    for name, rate in rates.items():
        yield "learning_rate" if len(rates) == 1 else f"learning_rate/{name}", rate


def _joint_charts(metrics: Mapping[str, float]) -> Any:
    """Return the layout of the Custom Scalars tab: training and validation of each value in one chart."""
    from torch.utils.tensorboard.summary import custom_scalars

    charts = {name: ["Multiline", [f"^{re.escape(name)}/(training|validation)$"]] for name in ("loss", *metrics)}
    return custom_scalars({"training and validation": charts})  # type: ignore[no-untyped-call]


def _settings_text(settings: Mapping[str, Any]) -> Any:
    """Return the settings as a block of JSON for the Text tab; they come without secrets."""
    from torch.utils.tensorboard.summary import text

    lines = json.dumps(settings, indent=2, ensure_ascii=False, default=str).splitlines()
    return text("settings", "\n".join(f"    {line}" for line in lines))  # type: ignore[no-untyped-call]
