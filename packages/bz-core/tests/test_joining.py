"""Metrics that take in several batches at a time: which do, that nothing of it shows, and when they are up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import Accuracy as AnyAccuracy
from torchmetrics import MeanMetric, Metric
from torchmetrics import classification as theirs

from bz import Plugin, TrainingContext
from bz.errors import TrainingError
from bz.testing import tiny_spec, train
from bz.training.joining import MOST_BATCHES, MOST_BYTES, joins_batches
from bz.training.metrics import MetricSet

if TYPE_CHECKING:
    from collections.abc import Sequence

CPU = torch.device("cpu")
CLASSES = 4
JOINING: dict[str, Metric] = {
    "accuracy of the settings": AnyAccuracy(task="multiclass", num_classes=CLASSES),
    "accuracy, macro": theirs.MulticlassAccuracy(CLASSES),
    "accuracy, top 2": theirs.MulticlassAccuracy(CLASSES, top_k=2, average="micro"),
    "accuracy, ignoring a class": theirs.MulticlassAccuracy(CLASSES, ignore_index=1, average="weighted"),
    "precision": theirs.MulticlassPrecision(CLASSES),
    "recall": theirs.MulticlassRecall(CLASSES, average="none"),
    "f1": theirs.MulticlassF1Score(CLASSES),
    "specificity": theirs.MulticlassSpecificity(CLASSES),
    "hamming distance": theirs.MulticlassHammingDistance(CLASSES),
    "stat scores": theirs.MulticlassStatScores(CLASSES, average="none"),
    "confusion matrix": theirs.MulticlassConfusionMatrix(CLASSES),
    "cohen's kappa": theirs.MulticlassCohenKappa(CLASSES),
    "jaccard index": theirs.MulticlassJaccardIndex(CLASSES),
    "matthews": theirs.MulticlassMatthewsCorrCoef(CLASSES),
}
NOT_JOINING: dict[str, Any] = {
    "decides batch by batch, two classes": theirs.BinaryAccuracy(),
    "decides batch by batch, several labels": theirs.MultilabelF1Score(num_labels=3),
    "decides batch by batch, thresholds": theirs.MulticlassAUROC(CLASSES, thresholds=5),
    "keeps a value for each sample": theirs.MulticlassAccuracy(CLASSES, multidim_average="samplewise"),
    "adds up fractions": MeanMetric(),
}


class Sizes:
    """Notes how many samples it is given at a time, and in which order; says that it joins batches."""

    joins_batches: ClassVar[bool] = True

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.sizes: list[int] = []

    def update(self, preds: Any, target: torch.Tensor) -> None:
        assert len(preds) == len(target)
        assert not torch.is_grad_enabled()
        self.sizes.append(len(target))
        self.seen += target.flatten().tolist()

    def compute(self) -> int:
        return len(self.seen)

    def reset(self) -> None:
        self.seen.clear()
        self.sizes.clear()


def inside(metrics: MetricSet, name: str = "metric") -> Any:
    return metrics._metrics[name]


def numbered(first: int, size: int = 2, width: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, width, requires_grad=True), torch.arange(first, first + size)


@pytest.mark.parametrize("name", JOINING)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=2 * MOST_BATCHES + 3), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_metric_that_joins_batches_has_the_value_of_one_that_is_given_each(
    name: str, sizes: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    alone, joining = JOINING[name].clone(), MetricSet({"metric": JOINING[name]}, CPU)
    for size in sizes:
        outputs = torch.randn(size, CLASSES, generator=generator)
        targets = torch.randint(CLASSES, (size,), generator=generator)
        alone.update(outputs, targets)
        joining.update(outputs, targets)
    expected = MetricSet({"metric": alone}, CPU)
    expected._has_batches, expected._values = True, None
    assert repr(joining.values()) == repr(expected.values()), "NaN counts as equal"


@pytest.mark.parametrize("name", JOINING)
def test_metrics_that_add_up_samples_join_batches(name: str) -> None:
    assert joins_batches(JOINING[name])


@pytest.mark.parametrize("name", NOT_JOINING)
def test_metrics_that_would_come_out_otherwise_do_not(name: str) -> None:
    assert not joins_batches(NOT_JOINING[name])


def test_metric_derived_from_one_of_torchmetrics_does_not_unless_it_says_so() -> None:
    class Mine(theirs.MulticlassAccuracy):
        """May do anything."""

    class Sure(Mine):
        joins_batches = True

    assert not joins_batches(Mine(CLASSES))
    assert joins_batches(Sure(CLASSES))


def test_batches_come_together_and_in_order_and_all_are_there_when_read() -> None:
    metrics = MetricSet({"metric": Sizes()}, CPU)
    for index in range(MOST_BATCHES + 3):
        metrics.update(*numbered(2 * index))
    assert inside(metrics).sizes == [2 * MOST_BATCHES]
    assert metrics.values() == {"metric": 2 * (MOST_BATCHES + 3)}
    assert inside(metrics).sizes == [2 * MOST_BATCHES, 6]
    assert inside(metrics).seen == list(range(2 * (MOST_BATCHES + 3)))


def test_metric_that_does_not_join_gets_each_batch_beside_one_that_does() -> None:
    class Each(Sizes):
        joins_batches = False

    metrics = MetricSet({"joining": Sizes(), "each": Each()}, CPU)
    for index in range(3):
        metrics.update(*numbered(2 * index))
    assert inside(metrics, "each").sizes == [2, 2, 2]
    assert inside(metrics, "joining").sizes == []


def test_large_batch_does_not_wait_and_comes_behind_those_that_did() -> None:
    metrics = MetricSet({"metric": Sizes()}, CPU)
    metrics.update(*numbered(0))
    metrics.update(*numbered(2, width=MOST_BYTES // 8))
    assert inside(metrics).sizes == [2, 2]
    assert inside(metrics).seen == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "odd",
    [
        (torch.zeros(2, 4), torch.zeros(2)),
        (torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2)),
        (torch.zeros(2, 3), torch.zeros(2, 1)),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int32)),
    ],
)
def test_batches_that_differ_in_more_than_their_number_are_not_joined(odd: tuple[torch.Tensor, torch.Tensor]) -> None:
    metrics = MetricSet({"metric": Sizes()}, CPU)
    metrics.update(torch.zeros(2, 3), torch.zeros(2))
    metrics.update(*odd)
    metrics.values()
    assert inside(metrics).sizes == [2, 2]


def test_single_values_are_not_joined() -> None:
    class Values(Sizes):
        def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
            self.seen += [int(preds), int(target)]

    metrics = MetricSet({"metric": Values()}, CPU)
    for value in range(2):
        metrics.update(torch.tensor(value), torch.tensor(value))
    metrics.values()
    assert inside(metrics).seen == [0, 0, 1, 1]


def test_outputs_that_are_no_tensor_do_not_wait() -> None:
    metrics = MetricSet({"metric": Sizes()}, CPU)
    metrics.update([0.0, 1.0], torch.tensor([7, 8]))
    assert inside(metrics).seen == [7, 8]


def test_loader_that_fills_the_same_tensors_again_changes_nothing() -> None:
    metrics = MetricSet({"metric": Sizes()}, CPU)
    outputs, targets = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    for value in range(3):
        targets.fill_(value)
        metrics.update(outputs, targets)
    metrics.values()
    assert inside(metrics).seen == [0, 0, 1, 1, 2, 2]


def test_state_has_the_batches_that_waited() -> None:
    saved, restored = (MetricSet({"metric": theirs.MulticlassAccuracy(CLASSES)}, CPU) for _ in range(2))
    saved.update(torch.eye(CLASSES), torch.tensor([0, 1, 2, 0]))
    restored.update(torch.eye(CLASSES), torch.tensor([3, 3, 3, 3]))
    restored.load_state_dict(saved.state_dict())
    assert restored.values() == saved.values() == {"metric": 0.625}


def test_reset_forgets_the_batches_that_wait() -> None:
    metrics = MetricSet({"metric": Sizes()}, CPU)
    metrics.update(*numbered(0))
    metrics.reset()
    assert metrics.values() == {}
    metrics.update(*numbered(5))
    metrics.values()
    assert inside(metrics).seen == [5, 6]


class Reader(Plugin):
    """Reads the metrics after every batch."""

    name: ClassVar[str] = "reader"

    def end_training_batch(self, context: TrainingContext) -> None:
        _ = context.training_metrics


class Picky(Sizes):
    """Refuses a class."""

    def update(self, preds: Any, target: torch.Tensor) -> None:
        if 9 in target:
            raise TrainingError("class 9 is unknown")
        super().update(preds, target)


@pytest.mark.parametrize("plugins", [[], [Reader]], ids=["alone", "read by a plugin"])
def test_error_of_a_metric_ends_the_run_whoever_met_it_first(plugins: Sequence[type[Plugin]]) -> None:
    batches = [(torch.zeros(2, 4), torch.tensor([0, 1])) for _ in range(8)]
    batches[0][1][0] = 9
    spec = tiny_spec(training_loader=batches, loss_fn=lambda outputs, _: outputs.sum(), metrics={"picky": Picky()})
    with pytest.raises(TrainingError, match="class 9 is unknown"):
        train(spec, *[plugin() for plugin in plugins])
