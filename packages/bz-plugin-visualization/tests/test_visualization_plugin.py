"""Settings, files and cost of the plugin, on real runs."""

from __future__ import annotations

import inspect
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bz.errors import ConfigError
from bz.hookspecs import LIFECYCLE_HOOKS
from bz.plugins import Plugin
from bz.plugins import VisualizationPlugin as ResolvedPlugin
from bz.plugins.settings import build_plugin, check_settings
from bz.testing import PluginConformance, tiny_spec, train
from bz_plugin_visualization import VisualizationPlugin
from bz_plugin_visualization.plugin import VisualizationConfig

if TYPE_CHECKING:
    from bz import TrainingContext

README = Path(__file__).parents[1] / "README.md"
SMALL: dict[str, Any] = {"dpi": 30}


class Mean:
    """Mean of the outputs, which is a metric."""

    def __init__(self) -> None:
        self.reset()

    def update(self, preds: Any, target: Any) -> None:
        self.values.append(float(preds.mean()))

    def compute(self) -> float:
        return sum(self.values) / len(self.values)

    def reset(self) -> None:
        self.values: list[float] = []


class TestVisualizationConformance(PluginConformance):
    def make_plugin(self) -> VisualizationPlugin:
        return VisualizationPlugin(update_interval=1, dpi=30)


def names(folder: Path) -> list[str]:
    """Return the files under a folder, without those of the core."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in files if path.parts[0] != "state")


def test_plugin_is_found_under_the_name_of_the_guide() -> None:
    assert ResolvedPlugin is VisualizationPlugin


def test_arguments_of_the_guide_are_taken_by_position(tmp_path: Path) -> None:
    train(tiny_spec(), VisualizationPlugin("pictures", 2, report_file=False, dpi=30), epochs=2, run_dir=tmp_path)
    assert names(tmp_path) == ["pictures/loss_plot_epoch_2.png"]


def test_settings_and_arguments_have_the_same_names_and_defaults() -> None:
    parameters = inspect.signature(VisualizationPlugin).parameters
    arguments = {name: parameter.default for name, parameter in parameters.items()}
    assert list(arguments) == list(VisualizationConfig.model_fields)
    assert VisualizationConfig.model_validate(arguments) == VisualizationConfig()


def test_settings_are_documented_as_they_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| (.*) \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    fields = VisualizationConfig.model_fields
    described = [(name, str(field.default).lower(), field.description) for name, field in fields.items()]
    assert rows == described


def test_hooks_are_documented_as_they_are() -> None:
    hooks = [name for name in vars(VisualizationPlugin) if name in LIFECYCLE_HOOKS]
    rows = re.findall(r"^\| `((?:start|end|load|save)_\w+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == hooks


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"update_interval": 0}, "`update_interval` must be above 0"),
        ({"update_interval": "200 steps"}, "must be epochs or a time, since plots are drawn at the end of an epoch"),
        ({"dpi": 10}, "`dpi` must be at least 30, got 10."),
        ({"keep": 0}, "`keep` must be at least 1, got 0."),
        ({"loss_axis": "logarithmic"}, "`loss_axis` must be"),
        ({"plot_dir": "a\nb"}, "must be a path without control characters"),
        ({"report_file": "a\x00b"}, "must be a path without control characters"),
    ],
)
def test_bad_argument_gets_one_sentence(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        VisualizationPlugin(**settings)
    assert fault in str(caught.value)
    assert str(caught.value).startswith("VisualizationPlugin: ")
    with pytest.raises(ConfigError):
        check_settings("visualization", VisualizationPlugin, settings)


def test_unknown_setting_is_refused_with_the_close_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'plot_dir'"):
        check_settings("visualization", VisualizationPlugin, {"plot_dri": "x"})


def test_settings_build_the_plugin(tmp_path: Path) -> None:
    settings = {"plot_dir": "p", "update_interval": "3 epochs", "report_file": False, "dpi": 30}
    plugin = build_plugin("visualization", VisualizationPlugin, settings)
    train(tiny_spec(), plugin, epochs=3, run_dir=tmp_path)
    assert names(tmp_path) == ["p/loss_plot_epoch_3.png"]


def test_plots_are_written_every_interval_and_at_the_end(tmp_path: Path) -> None:
    train(tiny_spec(metrics={"mean": Mean()}), VisualizationPlugin(**SMALL), epochs=7, run_dir=tmp_path)
    assert names(tmp_path) == [
        "plots/loss_plot_epoch_5.png",
        "plots/loss_plot_epoch_7.png",
        "plots/metrics_plot_epoch_5.png",
        "plots/metrics_plot_epoch_7.png",
        "report.html",
    ]


def test_last_epoch_on_the_interval_is_drawn_once(tmp_path: Path) -> None:
    plugin = VisualizationPlugin(**SMALL)
    train(tiny_spec(), plugin, epochs=5, run_dir=tmp_path)
    assert names(tmp_path) == ["plots/loss_plot_epoch_5.png", "report.html"]
    assert plugin.state_dict()["plotted"] == [5]


def test_script_without_run_folder_writes_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(tiny_spec(), VisualizationPlugin(**SMALL), epochs=1)
    assert names(tmp_path) == ["plots/loss_plot_epoch_1.png", "report.html"]


def test_interval_may_be_a_time(tmp_path: Path) -> None:
    train(tiny_spec(), VisualizationPlugin(update_interval="1 h", **SMALL), epochs=6, run_dir=tmp_path)
    assert names(tmp_path) == ["plots/loss_plot_epoch_6.png", "report.html"]
    train(tiny_spec(), VisualizationPlugin(update_interval="0.000001 s", **SMALL), epochs=3, run_dir=tmp_path / "b")
    assert len(names(tmp_path / "b")) == 4


def test_keep_deletes_the_oldest_plots_of_this_run_only(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "loss_plot_epoch_77.png").touch()
    plugin = VisualizationPlugin(update_interval=1, keep=2, **SMALL)
    train(tiny_spec(metrics={"mean": Mean()}), plugin, epochs=4, run_dir=tmp_path)
    assert names(tmp_path / "plots") == [
        "loss_plot_epoch_3.png",
        "loss_plot_epoch_4.png",
        "loss_plot_epoch_77.png",
        "metrics_plot_epoch_3.png",
        "metrics_plot_epoch_4.png",
    ]


def test_dpi_decides_the_size_of_a_plot(tmp_path: Path) -> None:
    train(tiny_spec(), VisualizationPlugin(dpi=40), epochs=1, run_dir=tmp_path)
    header = (tmp_path / "plots" / "loss_plot_epoch_1.png").read_bytes()[16:24]
    assert (int.from_bytes(header[:4]), int.from_bytes(header[4:])) == (400, 240)


def test_history_has_every_epoch_and_the_learning_rates(tmp_path: Path) -> None:
    plugin = VisualizationPlugin(**SMALL)
    spec = tiny_spec(metrics={"mean": Mean()})
    spec.lr_scheduler = torch.optim.lr_scheduler.StepLR(spec.optimizer, 1, gamma=0.5)
    result = train(spec, plugin, epochs=3, run_dir=tmp_path)
    history = plugin.state_dict()["history"]
    for phase in ("training", "validation"):
        assert history["losses"][phase] == {"epochs": [1, 2, 3], "values": [r[f"{phase}_loss"] for r in result.history]}
        assert history["metrics"]["mean"][phase]["values"] == [row[f"{phase}_mean"] for row in result.history]
    assert history["learning_rates"] == {"learning rate": {"epochs": [1, 2, 3], "values": [0.1, 0.05, 0.025]}}


def test_each_parameter_group_has_a_learning_rate_until_they_are_many(tmp_path: Path) -> None:
    for count, expected in ((2, ["group 0", "group 1"]), (8, ["lowest", "highest"])):
        spec, plugin = tiny_spec(), VisualizationPlugin(**SMALL)
        layers = [torch.nn.Linear(1, 1) for _ in range(count - 1)]
        for layer in layers:
            spec.optimizer.add_param_group({"params": layer.parameters(), "lr": 0.5})
        train(spec, plugin, epochs=1, run_dir=tmp_path)
        assert list(plugin.state_dict()["history"]["learning_rates"]) == expected


def test_each_of_several_optimizers_has_a_learning_rate(tmp_path: Path) -> None:
    def step(context: TrainingContext, batch: Any) -> Any:
        loss = context.model(batch[0]).square().mean()
        context.backward(loss)
        for optimizer in context.optimizer.values():
            context.step_optimizer(optimizer)
        return loss

    spec = tiny_spec(training_step=step, validation_loader=None)
    parameters = list(spec.model.parameters())
    spec.optimizer = {
        "first_layer": torch.optim.SGD(parameters[:2], lr=0.1),
        "last_layer": torch.optim.SGD(parameters[2:], lr=0.2),
    }
    plugin = VisualizationPlugin(**SMALL)
    train(spec, plugin, epochs=1, run_dir=tmp_path, strict_plugins=True)
    rates = plugin.state_dict()["history"]["learning_rates"]
    assert {name: curve["values"] for name, curve in rates.items()} == {"first layer": [0.1], "last layer": [0.2]}


def test_second_run_of_the_same_trainer_begins_anew(tmp_path: Path) -> None:
    plugin = VisualizationPlugin(**SMALL)
    for _ in range(2):
        train(tiny_spec(), plugin, epochs=2, run_dir=tmp_path)
    assert plugin.state_dict()["history"]["losses"]["training"]["epochs"] == [1, 2]


def test_run_without_an_epoch_has_a_report_and_no_plot(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="broken"):
        train(tiny_spec(training_step=broken_step), VisualizationPlugin(**SMALL), epochs=2, run_dir=tmp_path)
    assert names(tmp_path) == ["report.html"]
    assert "No epoch was finished" in (tmp_path / "report.html").read_text(encoding="utf-8")


def broken_step(context: Any, batch: Any) -> torch.Tensor:
    raise RuntimeError("broken")


class Quota(Plugin):
    """Lets no file grow beyond a few bytes, as a full disk would, while the plots are drawn."""

    def end_epoch(self, context: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))


def test_full_disk_is_reported_and_leaves_no_partial_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        result = train(
            tiny_spec(), Quota(), VisualizationPlugin(update_interval=1, **SMALL), run_dir=tmp_path,
            checkpoint_interval=0,
        )  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.status == "completed"
    assert "plugin 'visualization' failed in end_epoch (epoch 1, step 3): OSError: [Errno 27]" in caplog.text
    assert names(tmp_path) == []


def test_path_out_of_the_run_folder_is_reported_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tiny_spec(), VisualizationPlugin("../elsewhere", **SMALL), epochs=1, run_dir=tmp_path / "run")
    assert "'../elsewhere' leads out of the run folder" in caplog.messages[0]
    assert not (tmp_path / "elsewhere").exists()


SCRIPT = """
import sys
import matplotlib
before = dict(matplotlib.rcParams)
from bz.testing import tiny_spec, train
from bz_plugin_visualization import VisualizationPlugin
print("matplotlib.figure" in sys.modules)
train(tiny_spec(), VisualizationPlugin(), epochs=1, run_dir=sys.argv[1] + "/b")
print("matplotlib.pyplot" in sys.modules, matplotlib.rcParams["backend"], dict(matplotlib.rcParams) == before)
"""


@pytest.mark.parametrize("backend", ["TkAgg", "agg", "module://no_such_backend"])
def test_user_backend_and_settings_are_left_alone_and_pyplot_is_not_loaded(backend: str, tmp_path: Path) -> None:
    environment = {**os.environ, "MPLBACKEND": backend}
    environment.pop("DISPLAY", None)
    output = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path], env=environment, capture_output=True, text=True, check=True
    )
    assert output.stdout.splitlines() == ["False", f"False {backend} True"]
    assert output.stderr == ""
    assert (tmp_path / "b" / "plots" / "loss_plot_epoch_1.png").is_file()


def test_open_figure_of_the_user_is_left_alone(tmp_path: Path) -> None:
    from matplotlib import pyplot as plt

    plt.switch_backend("agg")
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    try:
        train(tiny_spec(), VisualizationPlugin(**SMALL), epochs=1, run_dir=tmp_path)
        assert (plt.get_fignums(), plt.gcf(), plt.gca()) == ([figure.number], figure, axes)
        assert len(axes.lines) == 1
    finally:
        plt.close(figure)


def test_nothing_heavy_is_imported_before_the_first_plot() -> None:
    code = (
        "import sys, bz_plugin_visualization as p; p.VisualizationPlugin();"
        "print([name for name in ('matplotlib', 'numpy', 'torch') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


def test_batches_cost_nothing() -> None:
    assert [name for name in dir(VisualizationPlugin) if name.endswith("_batch")] == []
