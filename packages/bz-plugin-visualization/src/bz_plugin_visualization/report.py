"""The page at the end: curves, final numbers, hyperparameters, settings, plugins and how it ended.

The curves are SVG made by hand rather than by matplotlib: a sixth of the size, with text that is
text, with colours that follow the page, and the same for the same numbers. The page needs no script
and nothing from elsewhere, and says so in a content security policy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any, Final

from bz import provenance
from bz.config.redaction import redact
from bz_plugin_visualization.chart import Chart, draw_chart
from bz_plugin_visualization.history import TRAINING, VALIDATION, Curves, History
from bz_plugin_visualization.markup import Markup, element
from bz_plugin_visualization.scale import epoch_label
from bz_plugin_visualization.wording import counted, duration, flat, in_words, number, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bz.context import TrainingContext
    from bz.progress import PluginUsage
    from bz_plugin_visualization.scale import AxisKind

MAX_CHARTS: Final = 24
MAX_ROWS: Final = 500
MAX_NAME_LENGTH: Final = 100
MAX_REASON_LENGTH: Final = 2000
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
PACKAGE: Final = "bz-plugin-visualization"


@dataclass(frozen=True, slots=True)
class Report:
    """What the page is made from.

    Attributes:
        context: The session that ends.
        history: Every epoch of the run, those before a resume included.
        seconds: Time the run took, in all of its sessions.
        num_sessions: How many there were.
        loss_axis: Kind of the axis of the losses.
    """

    context: TrainingContext
    history: History
    seconds: float
    num_sessions: int
    loss_axis: AxisKind = "auto"

    def page(self) -> str:
        """Return the whole page."""
        name = run_name(self.context)
        head = element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=POLICY),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("title", f"{name} - training report"),
            element("style", _style()),
        )
        body = element("body", element("header", *self._opening(name)), element("main", *self._sections()), _footer())
        return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"

    def _opening(self, name: str) -> Iterable[Markup]:
        context, status = self.context, self.context.status
        yield element("h1", name)
        sentence = f" after {self._epochs()} in {duration(self.seconds)}"
        yield element("p", element("span", status, class_=f"status {status}"), sentence)
        if reason := end_reason(context):
            yield element("p", reason, class_=f"reason {status}")
        yield element("p", " · ".join(self._facts()), class_="muted")
        yield element("dl", *self._tiles(), class_="tiles")

    def _epochs(self) -> str:
        """Return as in `3 of 10 epochs`, or `3 epochs` where no number was planned; steps, too, if they are limited."""
        done, planned, max_steps = self.history.last_epoch, self.context.epochs, self.context.max_steps
        epochs = counted(done, "epoch") if planned is None else f"{done:,} of {counted(planned, 'epoch')}"
        steps = "" if max_steps is None else f", {self.context.global_step:,} of {counted(max_steps, 'step')},"
        return epochs + steps

    def _facts(self) -> Iterable[str]:
        context = self.context
        model = context.hyperparameters.get("model_name")
        class_name = type(context.model).__name__
        yield class_name if model is None else f"{one_line(in_words(model), MAX_NAME_LENGTH)} ({class_name})"
        yield f"on {context.device}"
        yield f"session began {context.started_at:%Y-%m-%d %H:%M %Z}"
        if self.num_sessions > 1:
            yield f"session {self.num_sessions:,} of the run, the earlier ones included"

    def _tiles(self) -> Iterable[Markup]:
        best = self.history.best()
        if best:
            yield _tile("Best epoch", epoch_label(best.epoch), f"lowest {best.phase} loss")
            yield _tile("Best loss", number(best.loss), best.phase)
        for phase, curve in self.history.losses.items():
            yield _tile(f"Last {phase} loss", number(curve.last), f"epoch {epoch_label(curve.epochs[-1])}")
        yield _tile("Duration", duration(self.seconds), counted(self.context.global_step, "step"))

    def _sections(self) -> Iterable[Markup]:
        context, history = self.context, self.history
        if not history.last_epoch:
            yield element("p", "No epoch was finished, so there are no curves.")
        else:
            yield _section("Curves", element("div", *self._charts(), class_="charts"), *self._left_out())
            yield _section("Final numbers", numbers_table(history))
        if context.hyperparameters:
            yield _section("Hyperparameters", _pairs("Hyperparameters", redact(context.hyperparameters)))
        if shares := context.time_usage().shares():
            remark = element("p", "Where the time of this session went, as far as it was when this page was written.",
                             class_="muted")  # fmt: skip
            yield _section("Time", remark, _time_table(shares, context.time_usage().total))
        if usage := context.plugin_usage():
            remark = element(
                "p", "What each plugin cost this session, without the writing of this page.", class_="muted"
            )
            yield _section("Plugins", remark, _usage_table(usage))
        if context.settings:
            yield _section("Settings", _pairs("Settings", redact(context.settings)))
        yield _section("Versions", _pairs("Versions", versions()))

    def _charts(self) -> Iterable[Markup]:
        history = self.history
        yield element("div", draw_chart(Chart("loss", "Loss", history.losses, self.loss_axis, history.best())),
                      class_="wide")  # fmt: skip
        for index, (name, curves) in enumerate(self._shown_metrics().items()):
            yield draw_chart(Chart(f"metric-{index}", name, curves))
        if history.learning_rates:
            yield draw_chart(Chart("learning-rate", "Learning rate", history.learning_rates, "auto"))

    def _shown_metrics(self) -> dict[str, Curves]:
        return dict(list(self.history.metrics.items())[:MAX_CHARTS])

    def _left_out(self) -> Iterable[Markup]:
        if (count := len(self.history.metrics)) > MAX_CHARTS:
            yield element("p", f"Curves of the first {MAX_CHARTS} of {count:,} metrics.", class_="muted")


def run_name(context: TrainingContext) -> str:
    """Return what the run is called: its folder, else the name of the model."""
    if context.run_dir is not None:
        return context.run_dir.absolute().name
    name = in_words(context.hyperparameters.get("model_name", type(context.model).__name__))
    return one_line(name, MAX_NAME_LENGTH) or "Training"


def end_reason(context: TrainingContext) -> str:
    """Return why the run ended as it did, without secrets; empty when it did all of its epochs."""
    reason = context.error_text or context.stop_reason or ""
    return one_line(str(redact(reason)), MAX_REASON_LENGTH)


def versions() -> dict[str, str]:
    """Return the versions of what the result depends on."""
    core = provenance.versions()
    return {
        "Python": core["python"],
        "bz-core": core["bz"] or "unknown",
        PACKAGE: _version(PACKAGE),
        "torch": core["torch"],
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def numbers_table(history: History) -> Markup:
    """Return losses and metrics of the last and of the best epoch."""
    best = history.best()
    moments: dict[str, float] = {"Last epoch": history.last_epoch}
    if best and best.epoch != history.last_epoch:
        moments["Best epoch"] = best.epoch
    phases = [phase for phase in (TRAINING, VALIDATION) if phase in history.losses]
    head = element(
        "thead",
        element(
            "tr",
            element("td", rowspan=2),
            *(element("th", f"{title} ({epoch_label(epoch)})", scope="colgroup", colspan=len(phases), class_="number")
              for title, epoch in moments.items()),
        ),
        element(
            "tr",
            *(element("th", phase, scope="col", class_="number") for _ in moments for phase in phases),
        ),
    )  # fmt: skip
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            *(_value_cell(curves, phase, epoch) for epoch in moments.values() for phase in phases),
        )
        for name, curves in {"loss": history.losses, **history.metrics}.items()
    ]
    return _table("Losses and metrics", head, rows)


def _value_cell(curves: Curves, phase: str, epoch: float) -> Markup:
    value = curves[phase].at(epoch) if phase in curves else None
    return element("td", "-" if value is None else number(value), class_="number")


def _time_table(shares: Sequence[tuple[str, float]], total_seconds: float) -> Markup:
    head = element(
        "thead",
        element("tr", element("th", "part", scope="col"),
                *(element("th", title, scope="col", class_="number") for title in ("seconds", "share"))),
    )  # fmt: skip
    rows = [
        element(
            "tr",
            element("th", part, scope="row"),
            element("td", f"{share * total_seconds:,.3f}", class_="number"),
            element("td", f"{100 * share:.1f} %", class_="number"),
        )
        for part, share in shares
    ]
    return _table("Time", head, rows)


def _usage_table(usage: Sequence[PluginUsage]) -> Markup:
    titles = ("plugin", "calls", "seconds", "share", "failures")
    head = element(
        "thead",
        element("tr", *(element("th", title, scope="col", class_="number" if title != "plugin" else None)
                        for title in titles)),
    )  # fmt: skip
    rows = [
        element(
            "tr",
            element("th", f"{one.name} (quarantined)" if one.is_quarantined else one.name, scope="row"),
            element("td", f"{one.calls:,}", class_="number"),
            element("td", f"{one.seconds:,.3f}", class_="number"),
            element("td", f"{100 * one.share:.1f} %", class_="number"),
            element("td", f"{one.failures:,}", class_="number"),
        )
        for one in usage
    ]
    return _table("Plugins", head, rows)


def _pairs(title: str, values: Mapping[str, Any]) -> Markup:
    """Return a table of names and values, nested ones with dots in their names."""
    pairs = list(flat(values))
    head = element("thead", element("tr", element("th", "name", scope="col"), element("th", "value", scope="col")))
    rows = [element("tr", element("th", name, scope="row"), element("td", text)) for name, text in pairs[:MAX_ROWS]]
    if left_out := len(pairs) - len(rows):
        rows.append(element("tr", element("th", "...", scope="row"), element("td", f"and {left_out:,} more")))
    return _table(title, head, rows, class_="pairs")


def _table(title: str, head: Markup, rows: Iterable[Markup], class_: str | None = None) -> Markup:
    """Return a table in a box that scrolls by itself where the page is too narrow for it."""
    table = element("table", head, element("tbody", *rows), class_=class_, aria_label=title)
    return element("div", table, class_="scroll", role="region", aria_label=title, tabindex=0)


def _section(title: str, *content: Markup) -> Markup:
    return element("section", element("h2", title), *content)


def _tile(title: str, value: str, remark: str) -> Markup:
    return element("div", element("dt", title), element("dd", value, element("small", remark)))


def _footer() -> Markup:
    now = datetime.now().astimezone()
    return element("footer", f"Written {now:%Y-%m-%d %H:%M %Z} by {PACKAGE} {_version(PACKAGE)}.")


def _style() -> Markup:
    """Return the style sheet of this package in fewer bytes; it holds nothing of a user's."""
    text = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    return Markup(re.sub(r"\s*\n\s*", "\n", text))
