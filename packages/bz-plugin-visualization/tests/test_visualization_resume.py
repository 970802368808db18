"""What a run that was cut off and resumed leaves behind, against one that was not."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from bz.plugins import Plugin
from bz.testing import tiny_spec, train
from bz_plugin_visualization import VisualizationPlugin

EPOCHS = 6


class Cut(Plugin):
    """Ends the run after some batch, before the checkpoint of that epoch."""

    def __init__(self, epoch: int, batch_index: int) -> None:
        self.place = epoch, batch_index

    def start_training_batch(self, context: Any) -> None:
        if (context.epoch, context.batch_index) == self.place:
            context.request_stop("cut", when="batch")


def make_plugin(**changes: Any) -> VisualizationPlugin:
    return VisualizationPlugin(**{"update_interval": 2, "dpi": 30, **changes})


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.png"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[str, Any]]:
    """The plots and the history of a run that nothing cut off."""
    folder, plugin = tmp_path_factory.mktemp("whole"), make_plugin()
    train(tiny_spec(), plugin, epochs=EPOCHS, run_dir=folder, seed=1)
    return digests(folder / "plots"), plugin.state_dict()["history"]


@pytest.mark.parametrize("place", [(1, 0), (2, 1), (3, 0), (3, 2), (6, 2)])
def test_resumed_run_draws_every_epoch_once(
    place: tuple[int, int], whole: tuple[dict[str, str], dict[str, Any]], tmp_path: Path
) -> None:
    train(tiny_spec(), make_plugin(), Cut(*place), epochs=EPOCHS, run_dir=tmp_path, seed=1)
    plugin = make_plugin()
    train(tiny_spec(), plugin, epochs=EPOCHS, run_dir=tmp_path, seed=1, resume=tmp_path)
    plots, history = whole
    assert plugin.state_dict()["history"] == history
    drawn = digests(tmp_path / "plots")
    last_before_the_cut = f"loss_plot_epoch_{place[0] - 1}.png"
    assert {name: digest for name, digest in drawn.items() if name != last_before_the_cut or name in plots} == plots


def test_plots_after_the_checkpoint_are_deleted(tmp_path: Path) -> None:
    train(tiny_spec(), make_plugin(update_interval=1), epochs=4, run_dir=tmp_path, checkpoint_interval=0)
    train(tiny_spec(), make_plugin(update_interval=1), epochs=2, run_dir=tmp_path)
    (tmp_path / "plots" / "mine.png").touch()
    train(tiny_spec(), make_plugin(), Cut(3, 0), epochs=4, run_dir=tmp_path, resume=tmp_path)
    assert sorted(digests(tmp_path / "plots")) == ["loss_plot_epoch_1.png", "loss_plot_epoch_2.png", "mine.png"]


def test_resume_without_a_run_folder_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(tiny_spec(), make_plugin(), epochs=1, run_dir=tmp_path / "run")
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "loss_plot_epoch_9.png").touch()
    train(tiny_spec(), make_plugin(), epochs=2, resume=tmp_path / "run")
    assert sorted(digests(tmp_path / "plots")) == ["loss_plot_epoch_2.png", "loss_plot_epoch_9.png"]


def test_keep_goes_on_across_a_resume(tmp_path: Path) -> None:
    train(tiny_spec(), make_plugin(update_interval=1, keep=2), epochs=3, run_dir=tmp_path)
    train(tiny_spec(), make_plugin(update_interval=1, keep=2), epochs=4, run_dir=tmp_path, resume=tmp_path)
    assert sorted(digests(tmp_path / "plots")) == ["loss_plot_epoch_3.png", "loss_plot_epoch_4.png"]


def test_plugin_that_was_added_at_the_resume_begins_there(tmp_path: Path) -> None:
    train(tiny_spec(), epochs=2, run_dir=tmp_path)
    plugin = make_plugin()
    train(tiny_spec(), plugin, epochs=4, run_dir=tmp_path, resume=tmp_path)
    assert plugin.state_dict()["history"]["losses"]["training"]["epochs"] == [3, 4]


def test_report_of_a_resumed_run_counts_sessions_and_their_time(tmp_path: Path) -> None:
    first = make_plugin()
    train(tiny_spec(), first, epochs=2, run_dir=tmp_path)
    second = make_plugin()
    train(tiny_spec(), second, epochs=4, run_dir=tmp_path, resume=tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "session 2 of the run" in page
    assert "after 4 of 4 epochs" in page
    assert second.state_dict()["sessions"] == 2
