"""What is in the event files of a run."""

from __future__ import annotations

import logging
import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from tensorboard.util.tensor_util import make_ndarray
from tensorboard_runs import AtBatch, batches, board, curves, load, train
from torch.utils.tensorboard import summary

from bz import Trainer
from bz.config.models import TrainingSettings
from bz.plugins import Plugin
from bz.spec import StepResult, TrainingSpec
from bz.testing import DeviceReads
from bz_plugin_tensorboard import add_image, add_scalar, add_summary

if TYPE_CHECKING:
    from bz.context import TrainingContext

SECRET = "canary-4711"


class Recorder(Plugin):
    """Keeps the numbers that the context shows."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.epochs: list[dict[str, float]] = []

    def end_training_batch(self, context: TrainingContext) -> None:
        assert context.loss is not None
        self.losses.append(context.loss.item())

    def end_epoch(self, context: TrainingContext) -> None:
        row = {"loss/training": context.training_loss, "loss/validation": context.validation_loss}
        row |= {f"{name}/training": value for name, value in context.training_metrics.items()}
        self.epochs.append(row | {f"{name}/validation": value for name, value in context.validation_metrics.items()})


def test_each_step_has_its_loss(tmp_path: Path) -> None:
    recorder = Recorder()
    train(board(), recorder, run_dir=tmp_path / "a")
    points = curves(tmp_path / "a")["loss/step"]
    assert [step for step, _ in points] == list(range(1, 37))
    assert [value for _, value in points] == pytest.approx(recorder.losses)


def test_each_epoch_has_its_losses_and_metrics_at_its_last_step(tmp_path: Path) -> None:
    recorder = Recorder()
    train(board(), recorder, run_dir=tmp_path / "a")
    found = curves(tmp_path / "a")
    for tag in ("loss/training", "loss/validation", "mean_output/training", "mean_output/validation"):
        expected = [row[tag] for row in recorder.epochs]
        assert [step for step, _ in found[tag]] == [12, 24, 36]
        assert [value for _, value in found[tag]] == pytest.approx(expected)
    assert found["progress/epoch"] == [(12, 1.0), (24, 2.0), (36, 3.0)]


def test_run_without_validation_has_no_validation_curves(tmp_path: Path) -> None:
    train(board(), validates=False, run_dir=tmp_path / "a")
    assert sorted(curves(tmp_path / "a")) == [
        "learning_rate",
        "loss/step",
        "loss/training",
        "mean_output/training",
        "progress/epoch",
    ]


def test_learning_rate_follows_the_scheduler(tmp_path: Path) -> None:
    train(board(), run_dir=tmp_path / "a")
    points = curves(tmp_path / "a")["learning_rate"]
    assert [step for step, _ in points] == [5, 10, 12, 15, 20, 24, 25, 30, 35, 36]
    assert [value for _, value in points] == pytest.approx([0.1] * 3 + [0.05] * 3 + [0.025] * 4)


def test_each_parameter_group_has_its_learning_rate(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 1)
    groups: list[dict[str, Any]] = [{"params": [model.weight]}, {"params": [model.bias], "lr": 0.01}]
    train(board(), model=model, optimizer=torch.optim.SGD(groups, lr=0.1), run_dir=tmp_path / "a", epochs=1)
    found = curves(tmp_path / "a")
    assert found["learning_rate/group_0"][0] == pytest.approx((5, 0.1))
    assert found["learning_rate/group_1"][0] == pytest.approx((5, 0.01))


def test_loss_that_is_not_a_number_is_shown_as_such(tmp_path: Path) -> None:
    data = batches()
    data[3] = (data[3][0] * math.nan, data[3][1])
    train(board(), loader=data, run_dir=tmp_path / "a", epochs=1, on_nonfinite="ignore")
    values = [value for _, value in curves(tmp_path / "a")["loss/step"]]
    assert [math.isnan(value) for value in values] == [False] * 3 + [True] * 9


def count_reads(*plugins: object, run_dir: Path) -> int:
    with DeviceReads() as reads:
        train(*plugins, loader=batches(100), epochs=2, run_dir=run_dir, validates=False, checkpoint_interval=0)
    return reads.total


def test_device_is_read_every_log_every_steps_and_no_more(tmp_path: Path) -> None:
    bare = count_reads(run_dir=tmp_path / "bare")
    every_30 = count_reads(board(log_every=30), run_dir=tmp_path / "a")
    assert every_30 - bare == 8  # at 30, 60, 90, 100 (an epoch), 120, 150, 180, 200


def test_points_are_on_disk_every_log_every_steps(tmp_path: Path) -> None:
    seen: list[int] = []
    look = AtBatch(8, lambda context: seen.extend(step for step, _ in curves(tmp_path / "a")["loss/step"]))
    train(board(), look, run_dir=tmp_path / "a")
    assert seen == [1, 2, 3, 4, 5]


def test_points_up_to_a_checkpoint_are_on_disk_when_it_is(tmp_path: Path) -> None:
    seen: list[int] = []

    class Look(Plugin):
        def save_checkpoint(self, context: TrainingContext) -> None:
            seen.append(curves(tmp_path / "a")["loss/step"][-1][0])

    ask = AtBatch(8, lambda context: context.save_checkpoint("eight.pth"))
    train(board(), ask, Look(), run_dir=tmp_path / "a", epochs=2)
    assert seen == [8, 12, 24]


def test_tensor_that_is_written_over_in_place_keeps_its_values(tmp_path: Path) -> None:
    buffer = torch.zeros(())

    class Fill(Plugin):
        def end_training_batch(self, context: TrainingContext) -> None:
            buffer.fill_(context.global_step)
            add_scalar("filled", buffer, context)

    train(board(), Fill(), run_dir=tmp_path / "a", epochs=1)
    assert curves(tmp_path / "a")["filled"] == [(step, float(step)) for step in range(1, 13)]


def test_numbers_of_the_user_are_a_curve(tmp_path: Path) -> None:
    train(board(), AtBatch(3, lambda context: add_scalar("own", 0.5, context)), run_dir=tmp_path / "a")
    assert curves(tmp_path / "a")["own"] == [(3, 0.5)]


def test_pictures_of_the_user_are_shown(tmp_path: Path) -> None:
    picture = torch.zeros(3, 4, 6)
    picture[0] = 1.0
    train(board(), AtBatch(3, lambda context: add_image("red", picture, context)), run_dir=tmp_path / "a")
    (image,) = load(tmp_path / "a").Images("red")
    assert (image.step, image.height, image.width) == (3, 4, 6)


@pytest.mark.parametrize(("layout", "shape"), [("HW", (4, 6)), ("HWC", (4, 6, 3)), ("NCHW", (2, 3, 4, 6))])
def test_pictures_come_in_several_layouts(tmp_path: Path, layout: str, shape: tuple[int, ...]) -> None:
    picture = np.zeros(shape, dtype=np.uint8)
    plugin = board()
    train(
        plugin,
        AtBatch(3, lambda context: plugin.add_image("own", picture, context, layout=layout)),
        run_dir=tmp_path / "a",
    )
    (image,) = load(tmp_path / "a").Images("own")
    assert (image.height, image.width) == (4, 12 if layout == "NCHW" else 6)


def test_any_summary_of_the_user_is_shown(tmp_path: Path) -> None:
    words = summary.text("note", "hello")  # type: ignore[no-untyped-call]
    train(board(), AtBatch(3, lambda context: add_summary(words, context)), run_dir=tmp_path / "a")
    (event,) = load(tmp_path / "a").Tensors("note/text_summary")
    assert make_ndarray(event.tensor_proto).tolist() == [b"hello"]


def test_own_pictures_and_curves_are_left_out_without_the_plugin(tmp_path: Path) -> None:
    def draw(context: TrainingContext) -> None:
        add_image("red", torch.zeros(3, 4, 6), context)
        add_scalar("own", 0.5, context)
        add_summary(object(), context)

    assert train(AtBatch(3, draw), run_dir=tmp_path / "a").status == "completed"


def test_histograms_show_weights_and_gradients(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 1)
    train(board(histograms_every=2), model=model, run_dir=tmp_path / "a", epochs=4)
    events = load(tmp_path / "a").Histograms("weights/weight")
    assert [event.step for event in events] == [24, 48]
    histogram = events[-1].histogram_value
    values = model.weight.detach()
    assert (histogram.min, histogram.max) == pytest.approx((values.min().item(), values.max().item()))
    assert (histogram.num, histogram.sum) == (3, pytest.approx(values.sum().item()))
    assert sum(histogram.bucket) == 3
    expected, _ = np.histogram(values.numpy(), bins=64)
    assert [count for count in histogram.bucket if count] == [count for count in expected.tolist() if count]
    assert [event.step for event in load(tmp_path / "a").Histograms("gradients/bias")] == [24, 48]


def test_histograms_may_be_due_inside_an_epoch(tmp_path: Path) -> None:
    train(board(histograms_every="7 steps"), run_dir=tmp_path / "a", epochs=2)
    assert [event.step for event in load(tmp_path / "a").Histograms("weights/weight")] == [7, 14, 21]


def test_histogram_of_values_without_a_range_counts_them(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 1)
    torch.nn.init.constant_(model.weight, 2.0)
    frozen = torch.optim.SGD(model.parameters(), lr=0.0)
    train(board(histograms_every=1), model=model, optimizer=frozen, run_dir=tmp_path / "a", epochs=1)
    histogram = load(tmp_path / "a").Histograms("weights/weight")[0].histogram_value
    assert (histogram.min, histogram.max, histogram.num, sum(histogram.bucket)) == (2.0, 2.0, 3, 3)


def test_histogram_leaves_out_what_is_not_finite(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 1)
    with torch.no_grad():
        model.weight[0, 0] = math.inf
    train(board(histograms_every=1), model=model, run_dir=tmp_path / "a", epochs=1, on_nonfinite="ignore")
    assert "weights/bias" not in load(tmp_path / "a").Tags()["histograms"]


class CountingModel(torch.nn.Sequential):
    """A model whose state changes with every forward pass, as that of many does in train mode."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(), torch.nn.Linear(8, 1))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        outputs: torch.Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
        return outputs


def test_graph_and_histograms_leave_the_training_as_it_is(tmp_path: Path) -> None:
    def state(*plugins: object) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        model = CountingModel()
        train(*plugins, model=model, run_dir=tmp_path / str(len(plugins)))
        return model.state_dict()

    plain = state()
    shown = state(board(graph=True, histograms_every=1))
    assert plain["calls"] == 42  # 36 batches of training, 6 of validation
    assert {name: torch.equal(shown[name], value) for name, value in plain.items()} == dict.fromkeys(plain, True)


def test_graph_names_the_layers_of_the_model(tmp_path: Path) -> None:
    train(board(graph=True), model=CountingModel(), run_dir=tmp_path / "a")
    names = {node.name for node in load(tmp_path / "a").Graph().node}
    assert any("BatchNorm1d[1]" in name for name in names)


def test_device_memory_is_not_shown_for_a_cpu(tmp_path: Path) -> None:
    train(board(), run_dir=tmp_path / "a")
    assert not [tag for tag in curves(tmp_path / "a") if tag.startswith("device_memory")]


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
def test_device_memory_of_an_accelerator_is_shown(tmp_path: Path) -> None:
    train(board(), run_dir=tmp_path / "a", device="auto")
    points = curves(tmp_path / "a")["device_memory_mib/allocated"]
    assert [step for step, _ in points] == [5, 10, 12, 15, 20, 24, 25, 30, 35, 36]
    assert all(value > 0 for _, value in points)


class Branching(torch.nn.Module):
    """A model that cannot be traced: its output is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, inputs: torch.Tensor) -> Any:
        return _Wrapped(self.layer(inputs))


class _Wrapped:
    def __init__(self, values: torch.Tensor) -> None:
        self.values = values


def test_model_that_cannot_be_traced_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def step(context: TrainingContext, batch: Any) -> StepResult:
        outputs = context.model(batch[0]).values
        return StepResult(torch.nn.functional.mse_loss(outputs, batch[1]), outputs, batch[1])

    options: dict[str, Any] = {"training_step": step, "validates": False, "strict": False, "loader": batches()}
    result = train(board(graph=True), model=Branching(), run_dir=tmp_path / "a", **options)
    assert result.plugin_usage[0].failures == 1
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    assert len(curves(tmp_path / "a")["loss/step"]) == 36


def test_run_is_one_folder_of_event_files(tmp_path: Path) -> None:
    train(board(), run_dir=tmp_path / "a", hyperparameters={"lr": 0.1})
    assert {path.parent for path in tmp_path.rglob("*tfevents*")} == {tmp_path / "a"}


def test_script_without_a_run_folder_writes_under_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(board())
    (folder,) = (tmp_path / "runs").iterdir()
    assert len(curves(folder)["loss/step"]) == 36


def test_log_dir_is_relative_to_the_run_folder(tmp_path: Path) -> None:
    train(board(log_dir="events"), run_dir=tmp_path / "a")
    assert len(curves(tmp_path / "a" / "events")["loss/step"]) == 36


def test_new_run_in_a_folder_with_events_gets_a_folder_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        train(board(log_dir=tmp_path / "events"))
    folders = [tmp_path / "events", tmp_path / "events" / "2", tmp_path / "events" / "3"]
    assert [len(curves(folder)["loss/step"]) for folder in folders] == [36, 36, 36]
    assert f"this one's are in {folders[1]}" in caplog.text


def test_failed_run_keeps_its_points_and_leaves_nothing_open(tmp_path: Path) -> None:
    class Broken:
        def __iter__(self) -> Any:
            yield from batches()[:7]
            raise ValueError("broken")

    threads = threading.active_count()
    plugin = board()
    with pytest.raises(ValueError, match="broken"):
        train(plugin, loader=Broken(), run_dir=tmp_path / "a")
    assert [step for step, _ in curves(tmp_path / "a")["loss/step"]] == list(range(1, 8))
    assert threading.active_count() == threads
    (path,) = (tmp_path / "a").glob("*tfevents*")
    assert str(path) not in {str(link.resolve()) for link in Path("/proc/self/fd").iterdir() if link.exists()}


def test_folder_that_cannot_be_written_is_reported_and_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    result = train(board(log_dir=tmp_path / "file"), strict=False)
    assert result.status == "completed"
    assert "FileExistsError" in caplog.text


def test_secrets_are_nowhere_in_the_events(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 1)
    hyperparameters = {"lr": 0.1, "tracking": {"api_key": SECRET}}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    spec = TrainingSpec(model, optimizer, torch.nn.MSELoss(), batches(), hyperparameters=hyperparameters)
    trainer = Trainer()
    trainer.add_plugin(board())
    trainer.run(spec, TrainingSettings(device="cpu"), run_dir=tmp_path / "a", record={"training": {"epochs": 1}})
    content = b"".join(path.read_bytes() for path in (tmp_path / "a").glob("*tfevents*"))
    assert SECRET.encode() not in content
    assert b"tracking.api_key" in content


def test_settings_are_shown_as_text(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 1)
    spec = TrainingSpec(model, torch.optim.SGD(model.parameters(), lr=0.1), torch.nn.MSELoss(), batches())
    trainer = Trainer()
    trainer.add_plugin(board())
    trainer.run(spec, TrainingSettings(device="cpu"), run_dir=tmp_path / "a", record={"training": {"epochs": 1}})
    (event,) = load(tmp_path / "a").Tensors("settings/text_summary")
    (text,) = make_ndarray(event.tensor_proto).tolist()
    assert text.decode() == '    {\n      "training": {\n        "epochs": 1\n      }\n    }'
