"""The page at the end: what it says, and that nothing in it can do harm."""

from __future__ import annotations

import math
import os
import re
import signal
from itertools import count
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import html5lib
import pytest
import torch

from bz import Trainer
from bz.config.models import TrainingSettings
from bz.plugins import Plugin
from bz.spec import StepResult
from bz.testing import tiny_spec, train
from bz_plugin_visualization import VisualizationPlugin

SVG = "{http://www.w3.org/2000/svg}"
HTML = "{http://www.w3.org/1999/xhtml}"
EVIL = "<script>window.hacked=1</script>\"'&\x00\x07\ud800<img src=x onerror=alert(1)>"


class Fixed:
    """A metric of one value."""

    def __init__(self, value: float = 0.5) -> None:
        self.value = value

    def update(self, preds: Any, target: Any) -> None:
        """Take nothing in."""

    def compute(self) -> float:
        return self.value

    def reset(self) -> None:
        """Forget nothing."""


def losses(values: list[float]) -> Any:
    """Return a step whose loss is the given one in each epoch."""

    def step(context: Any, batch: Any) -> StepResult:
        outputs = context.model(batch[0])
        return StepResult(outputs.sum() * 0 + values[context.epoch - 1], outputs, batch[1])

    return step


def parse(path: Path) -> ET.Element:
    """Return the page, which must be HTML without a single fault."""
    root: ET.Element = html5lib.HTMLParser(strict=True).parse(path.read_bytes(), transport_encoding="utf-8")
    return root


def report(folder: Path, *plugins: object, values: list[float] | None = None, **options: Any) -> ET.Element:
    """Train and return the report."""
    settings = {"dpi": 30, **options.pop("settings", {})}
    changes = {name: options.pop(name) for name in ("metrics", "hyperparameters", "training_step") if name in options}
    if values is not None:
        changes["training_step"] = losses(values)
        options |= {"epochs": len(values), "on_nonfinite": "ignore"}
    train(tiny_spec(**changes), VisualizationPlugin(**settings), *plugins, run_dir=folder, **options)
    return parse(folder / "report.html")


def words(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def section(page: ET.Element, title: str) -> ET.Element:
    [found] = [one for one in page.iter(f"{HTML}section") if words(one[0]) == title]
    return found


def rows(element: ET.Element) -> list[list[str]]:
    return [[words(cell) for cell in row] for row in element.iter(f"{HTML}tr")]


def test_page_says_what_came_of_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "my-run"
    page = report(folder, values=[3.0, 1.0, 2.0], metrics={"accuracy": Fixed()})
    assert words(next(page.iter(f"{HTML}h1"))) == "my-run"
    assert re.match(r"completed after 3 of 3 epochs in \d", words(next(page.iter(f"{HTML}p"))))
    numbers = rows(section(page, "Final numbers"))
    assert numbers[0] == ["", "Last epoch (3)", *numbers[0][2:]]
    assert numbers[1][:2] == ["training", "validation"]
    assert numbers[2][:2] == ["loss", "2.0000"]
    assert numbers[3] == ["accuracy", *["0.5000"] * (len(numbers[3]) - 1)]
    assert ["model_name", "tiny"] in rows(section(page, "Hyperparameters"))
    times = rows(section(page, "Time"))
    assert times[0] == ["part", "seconds", "share"]
    assert sum(float(share.removesuffix(" %")) for _, _, share in times[1:]) > 80  # parts below 1 % are left out
    assert [row[0] for row in rows(section(page, "Plugins"))] == ["plugin", "visualization"]
    assert [row[0] for row in rows(section(page, "Versions"))][1:] == [
        "Python",
        "bz-core",
        "bz-plugin-visualization",
        "torch",
    ]


def test_best_epoch_is_that_of_the_validation_loss_and_nan_never_wins(tmp_path: Path) -> None:
    spec = tiny_spec(
        training_step=losses([1.0, 2.0, 3.0, 4.0]), validation_step=losses([math.nan, 0.5, 0.25, 0.75])
    )  # fmt: skip
    train(spec, VisualizationPlugin(dpi=30), epochs=4, run_dir=tmp_path)
    page = parse(tmp_path / "report.html")
    assert "Best epoch 3 lowest validation loss" in re.sub(r"(?<=[a-z])(?=\d)|(?<=\d)(?=[a-z])", " ", words(page))
    assert rows(section(page, "Final numbers")) == [
        ["", "Last epoch (4)", "Best epoch (3)"],
        ["training", "validation", "training", "validation"],
        ["loss", "4.0000", "0.7500", "3.0000", "0.2500"],
    ]


def test_curves_have_every_epoch_and_a_description(tmp_path: Path) -> None:
    page = report(tmp_path, values=[4.0, 3.0, 2.0, 1.0])
    chart = next(page.iter(f"{SVG}svg"))
    path = next(one for one in chart.iter(f"{SVG}path") if one.get("class") == "c1")
    points = re.findall(r"[ML](\d+) (\d+)", path.get("d", ""))
    assert [int(x) for x, _ in points] == [0, 333, 667, 1000]
    assert [int(y) for _, y in points] == sorted(int(y) for _, y in points)
    description = next(chart.iter(f"{SVG}desc"))
    assert words(description).startswith("training: 4 epochs, from 4.0000 to 1.0000, between 1.0000 and 4.0000.")
    labels = (chart.get("aria-labelledby") or "").split()
    assert labels == [next(chart.iter(f"{SVG}title")).get("id"), description.get("id")]


def test_size_of_a_curve_is_bounded(tmp_path: Path) -> None:
    from bz_plugin_visualization.chart import Chart, draw_chart
    from bz_plugin_visualization.history import Curve

    values = torch.rand(100_000, generator=torch.Generator().manual_seed(0)).tolist()
    drawn = draw_chart(Chart("a", "A", {"training": Curve(list(range(1, 100_001)), values)}))
    assert drawn.count("L") <= 5 * 300
    assert len(drawn) < 20_000
    assert drawn == draw_chart(Chart("a", "A", {"training": Curve(list(range(1, 100_001)), values)}))


def test_values_that_are_no_number_make_a_gap_and_are_named(tmp_path: Path) -> None:
    page = report(tmp_path, values=[4.0, 3.0, math.nan, math.inf, 2.0, 1.0, math.nan])
    chart = next(page.iter(f"{SVG}svg"))
    path = next(one for one in chart.iter(f"{SVG}path") if one.get("class") == "c1")
    assert re.sub(r"[\d ]", "", path.get("d", "")) == "MLML"
    assert "The training value is not a finite number in epochs 3 to 4 and 7." in words(page)
    assert ["loss", "nan"] in [row[:2] for row in rows(section(page, "Final numbers"))]


def test_single_epoch_is_a_marker(tmp_path: Path) -> None:
    chart = next(report(tmp_path, values=[4.0]).iter(f"{SVG}svg"))
    assert [one.get("cx") for one in chart.iter(f"{SVG}circle") if one.get("class") == "c1"] == ["50.00%"]


def test_nothing_but_nan_is_said(tmp_path: Path) -> None:
    spec = tiny_spec(training_step=losses([math.nan]), validation_loader=None)
    train(spec, VisualizationPlugin(dpi=30), epochs=1, run_dir=tmp_path, on_nonfinite="ignore")
    assert "no finite value" in words(parse(tmp_path / "report.html"))


@pytest.mark.parametrize(("axis", "is_log"), [("auto", True), ("linear", False), ("log", True)])
def test_loss_axis_follows_the_setting(axis: str, is_log: object, tmp_path: Path) -> None:
    page = report(tmp_path, values=[100.0, 0.1], settings={"loss_axis": axis})
    assert ("Logarithmic axis." in words(next(page.iter(f"{HTML}figure")))) is is_log


def test_report_file_decides_where_it_is(tmp_path: Path) -> None:
    train(tiny_spec(), VisualizationPlugin(report_file="out/page.html", dpi=30), epochs=1, run_dir=tmp_path)
    assert (tmp_path / "out" / "page.html").is_file()
    assert not (tmp_path / "report.html").exists()


def test_very_many_metrics_have_some_curves_and_all_numbers(tmp_path: Path) -> None:
    page = report(tmp_path, epochs=1, metrics={f"class_{index}": Fixed(index) for index in range(60)})
    assert len(list(page.iter(f"{HTML}figure"))) == 1 + 24 + 1
    assert "Curves of the first 24 of 60 metrics." in words(page)
    assert len(rows(section(page, "Final numbers"))) == 2 + 1 + 60


class Stop(Plugin):
    def end_epoch(self, context: Any) -> None:
        context.request_stop("no improvement <b>at all</b>")


class Interrupt(Plugin):
    def end_training_batch(self, context: Any) -> None:
        if context.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_run_without_a_planned_number_of_epochs_says_how_many_it_took(tmp_path: Path) -> None:
    page = report(tmp_path, Stop(), epochs=None, max_time="1 h")
    assert words(next(page.iter(f"{HTML}p"))).startswith("stopped after 1 epoch in")


def test_reason_of_an_early_stop_is_there(tmp_path: Path) -> None:
    page = report(tmp_path, Stop(), epochs=9)
    paragraphs = [words(one) for one in page.iter(f"{HTML}p")]
    assert paragraphs[0].startswith("stopped after 1 of 9 epochs")
    assert paragraphs[1] == "no improvement <b>at all</b>"


def test_interrupted_run_has_a_report(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny_spec(), VisualizationPlugin(dpi=30), Interrupt(), epochs=9, run_dir=tmp_path)
    paragraphs = [words(one) for one in parse(tmp_path / "report.html").iter(f"{HTML}p")]
    assert paragraphs[0].startswith("interrupted after 1 of 9 epochs")
    assert paragraphs[1] == "SIGINT received"
    assert (tmp_path / "plots" / "loss_plot_epoch_1.png").is_file()


def test_failed_run_has_a_report_with_the_error(tmp_path: Path) -> None:
    batches = count()

    def step(context: Any, batch: Any) -> torch.Tensor:
        if next(batches) == 4:
            raise ValueError(f"shapes (3, 4) and {EVIL} at postgres://me:hunter2@host/db")
        loss: torch.Tensor = context.model(batch[0]).sum()
        return loss

    with pytest.raises(ValueError, match="shapes"):
        train(tiny_spec(training_step=step), VisualizationPlugin(dpi=30), epochs=9, run_dir=tmp_path)
    page = parse(tmp_path / "report.html")
    paragraphs = [words(one) for one in page.iter(f"{HTML}p")]
    assert paragraphs[0].startswith("failed after 1 of 9 epochs")
    assert paragraphs[1].startswith("ValueError: shapes (3, 4) and <script>")
    assert "hunter2" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert_harmless(page)


def assert_harmless(page: ET.Element) -> None:
    """No script, no handler, nothing from elsewhere."""
    names = {str(one.tag).partition("}")[2] for one in page.iter()}
    assert names & {"script", "img", "iframe", "object", "embed", "link", "base", "form", "a", "use", "image"} == set()
    for one in page.iter():
        assert [
            key for key in one.attrib if key.startswith("on") or key in {"src", "href", "style", "xlink:href"}
        ] == []
    [policy] = [one.get("content") for one in page.iter(f"{HTML}meta") if one.get("http-equiv")]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    [style] = [one.text or "" for one in page.iter(f"{HTML}style")]
    assert re.search(r"url\(|@import|http", style) is None


class Stubborn:
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Named(Plugin):
    name = EVIL

    def end_epoch(self, context: Any) -> None:
        """Cost something."""


def test_hostile_texts_do_nothing(tmp_path: Path) -> None:
    nested: dict[str, Any] = {"a": 1}
    for _ in range(30):
        nested = {EVIL: nested}
    hyperparameters = {
        "model_name": EVIL,
        EVIL: EVIL,
        "nested": nested,
        "object": Stubborn(),
        "long": "x" * 100_000,
        "many": list(range(1_000_000)),
        "huge": 10**5000,
        "type": torch.nn.Linear,
    }
    trainer = Trainer()
    trainer.plugins.add(VisualizationPlugin(dpi=30))
    trainer.plugins.add(Named(), EVIL)
    spec = tiny_spec(metrics={EVIL: Fixed()}, hyperparameters=hyperparameters)
    record = {"training": {"epochs": 1, "text": EVIL}, EVIL: [EVIL]}
    trainer.run(spec, TrainingSettings(epochs=1, device="cpu", checkpoint_interval=0), run_dir=tmp_path, record=record)
    page = parse(tmp_path / "report.html")
    assert_harmless(page)
    assert (tmp_path / "report.html").stat().st_size < 60_000
    text = words(page)
    assert "<script>window.hacked=1</script>" in text
    assert "<Stubborn>" in text
    assert "torch.nn.modules.linear.Linear" in text
    assert ["training.epochs", "1"] in rows(section(page, "Settings"))


def test_secrets_are_not_in_the_page_or_the_plots(tmp_path: Path) -> None:
    hyperparameters = {"api_key": "c4n4ry", "db": {"password": "c4n4ry"}, "url": "https://me:c4n4ry@host/", "lr": 0.1}
    page = report(tmp_path, epochs=1, hyperparameters=hyperparameters)
    for path in [tmp_path / "report.html", *tmp_path.glob("plots/*")]:
        assert b"c4n4ry" not in path.read_bytes()
    assert ["db.password", "**********"] in rows(section(page, "Hyperparameters"))


def test_tables_have_headers_and_page_has_a_language(tmp_path: Path) -> None:
    page = report(tmp_path, epochs=1)
    assert page.get("lang") == "en"
    for table in page.iter(f"{HTML}table"):
        assert {one.get("scope") for one in table.iter(f"{HTML}th")} <= {"row", "col", "colgroup"}
        assert all(row.find(f"{HTML}th") is not None for row in table.iter(f"{HTML}tr"))


def luminance(color: str) -> float:
    channels = [int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_have_the_contrast_that_wcag_asks_for(tmp_path: Path) -> None:
    style = (Path(__file__).parents[1] / "src" / "bz_plugin_visualization" / "style.css").read_text(encoding="utf-8")
    schemes = [
        dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]
    assert len(schemes) == 3
    for scheme in schemes:
        for background in (scheme["page"], scheme["panel"]):
            for name, color in scheme.items():
                if name in {"page", "panel", "rule"}:
                    continue
                dark, light = sorted((luminance(color), luminance(background)))
                least = 4.5 if name in {"text", "muted", "good", "warn", "bad"} else 3.0
                assert (light + 0.05) / (dark + 0.05) >= least, (name, color, background)
