"""What a real TensorBoard answers about runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tensorboard_runs import AtBatch, board, curves, train
from tensorboard_server import Server, serve

from bz_plugin_tensorboard import add_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bz.context import TrainingContext

TAGS = ["learning_rate", "loss/step", "loss/training", "loss/validation"]
TAGS += ["mean_output/training", "mean_output/validation", "progress/epoch"]


class Broken(torch.nn.Linear):
    """A model that fails in its second epoch."""

    calls = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > 16:
            raise RuntimeError("broken")
        return super().forward(inputs)


def draw(context: TrainingContext) -> None:
    add_image("red", torch.ones(3, 4, 6), context)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    hyperparameters: dict[str, Any] = {"lr": 0.1, "optimizer": {"name": "sgd", "nesterov": False}}
    train(
        board(graph=True, histograms_every=1), AtBatch(5, draw), run_dir=folder / "a", hyperparameters=hyperparameters
    )
    train(board(), run_dir=folder / "b", hyperparameters={"lr": 0.2, "width": 64})
    with pytest.raises(RuntimeError, match="broken"):
        train(board(), model=Broken(3, 1), run_dir=folder / "c", hyperparameters={"lr": 0.3})
    return folder


@pytest.fixture(scope="module", params=[True, False], ids=["fast", "python"])
def server(runs: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve(runs, fast=request.param) as server:
        server.wait_for_point("c", "loss/step", 14)
        yield server


def test_each_run_folder_is_one_run_with_its_name(server: Server) -> None:
    assert server.runs() == ["a", "b", "c"]


def test_runs_share_their_tags(server: Server) -> None:
    tags = server.scalar_tags()
    assert tags["a"] == tags["b"] == TAGS


def test_curves_have_the_numbers_of_the_files(server: Server, runs: Path) -> None:
    for run in ("a", "b", "c"):
        assert {tag: server.curve(run, tag) for tag in server.scalar_tags()[run]} == curves(runs / run)


def test_hyperparameters_of_all_runs_stand_beside_their_last_values(server: Server, runs: Path) -> None:
    experiment = server.post("plugin/hparams/experiment", {})
    types = {info["name"]: info["type"] for info in experiment["hparamInfos"]}
    assert types == {
        "lr": "DATA_TYPE_FLOAT64",
        "optimizer.name": "DATA_TYPE_STRING",
        "optimizer.nesterov": "DATA_TYPE_BOOL",
        "width": "DATA_TYPE_FLOAT64",
    }
    assert sorted(info["name"]["tag"] for info in experiment["metricInfos"]) == TAGS
    rows = session_rows(server)
    assert rows["a"]["hparams"] == {"lr": 0.1, "optimizer.name": "sgd", "optimizer.nesterov": False}
    assert rows["b"]["hparams"] == {"lr": 0.2, "width": 64.0}
    last = {tag: points[-1][1] for tag, points in curves(runs / "a").items()}
    assert rows["a"]["metrics"] == pytest.approx(last)


def test_hyperparameters_tab_knows_how_runs_ended(server: Server) -> None:
    statuses = {run: row["status"] for run, row in session_rows(server).items()}
    assert statuses == {"a": "STATUS_SUCCESS", "b": "STATUS_SUCCESS", "c": "STATUS_FAILURE"}


def session_rows(server: Server) -> dict[str, dict[str, Any]]:
    """Return, by run, what the table of the HParams tab shows."""
    columns: list[dict[str, Any]] = [{"metric": {"tag": tag}} for tag in TAGS]
    columns += [{"hparam": name} for name in ("lr", "optimizer.name", "optimizer.nesterov", "width")]
    question = {
        "startIndex": 0,
        "sliceSize": 10,
        "colParams": columns,
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
    }
    answer = server.post("plugin/hparams/session_groups", question)
    return {
        group["sessions"][0]["name"]: {
            "hparams": group["hparams"],
            "metrics": {value["name"]["tag"]: value["value"] for value in group["metricValues"]},
            "status": group["sessions"][0]["status"],
        }
        for group in answer["sessionGroups"]
    }


def test_joint_charts_histograms_graph_and_pictures_are_found(server: Server) -> None:
    (category,) = server.get("plugin/custom_scalars/layout")["category"]
    assert [chart["title"] for chart in category["chart"]] == ["loss", "mean_output"]
    chart = server.get("plugin/custom_scalars/scalars", run="a", tag="^loss/(training|validation)$")
    assert sorted(chart["tag_to_events"]) == ["loss/training", "loss/validation"]
    assert "gradients/bias" in server.get("plugin/histograms/tags")["a"]
    assert server.get("plugin/graphs/info")["a"]["run_graph"] is True
    assert list(server.get("plugin/images/tags")["a"]) == ["red"]
