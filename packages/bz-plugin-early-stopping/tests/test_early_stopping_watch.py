"""When a run stops, decided from values alone, and compared with the rules that people know from elsewhere."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bz_plugin_early_stopping.monitor import in_our_words, is_higher_better, is_of_validation
from bz_plugin_early_stopping.watch import Measurement, Rules, Watch

VALUES = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.3, 0.5, 1.0, math.nan, math.inf, -math.inf]), max_size=30)


def rules(**changes: Any) -> Rules:
    fields: dict[str, Any] = {
        "is_higher_better": False,
        "patience": 2,
        "min_delta": 0.0,
        "min_epochs": 0,
        "stopping_threshold": None,
        "divergence_threshold": None,
        "check_finite": False,
    }
    return Rules(**fields | changes)


def watched(values: list[float], monitor: str = "validation_loss", **changes: Any) -> tuple[int | None, Watch]:
    """Return the number of the value after which the run stops, from 1, and the watch."""
    watch = Watch(monitor, rules(**changes))
    for number, value in enumerate(values, 1):
        watch.add(Measurement(value=value, epoch=number, step=10 * number, epochs_done=number))
        if watch.reason() is not None:
            return number, watch
    return None, watch


def as_in_keras(values: list[float], *, patience: int, min_delta: float, is_higher: bool) -> int | None:
    """Return after which epoch Keras and Lightning stop, by the rule that both document."""
    best, wait = -math.inf if is_higher else math.inf, 0
    for number, value in enumerate(values, 1):
        wait += 1
        if (value - min_delta > best) if is_higher else (value + min_delta < best):
            best, wait = value, 0
        elif wait >= patience:
            return number
    return None


@given(
    VALUES.map(lambda values: [value for value in values if not math.isinf(value)]),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.05, 0.1]),
    st.booleans(),
)
def test_patience_and_min_delta_are_those_of_keras_and_lightning(
    values: list[float],
    patience: int,
    min_delta: float,
    is_higher: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    stopped, _ = watched(values, patience=patience, min_delta=min_delta, is_higher_better=is_higher)
    assert stopped == as_in_keras(values, patience=patience, min_delta=min_delta, is_higher=is_higher)


@given(VALUES, st.booleans(), st.sampled_from([None, 0.2]))
def test_best_is_a_finite_value_that_no_other_beats(
    values: list[float],
    is_higher: bool,  # noqa: FBT001 - drawn by hypothesis
    goal: float | None,
) -> None:
    _, watch = watched(values, patience=99, is_higher_better=is_higher, stopping_threshold=goal)
    seen = values[: watch.last.epoch] if watch.last else []
    finite = [value for value in seen if math.isfinite(value)]
    best = None if not finite else max(finite) if is_higher else min(finite)
    assert (watch.best and watch.best.value) == best


@given(VALUES, st.integers(1, 4), st.sampled_from([0.0, 0.1]), st.integers(0, 30), st.booleans())
def test_watch_that_is_saved_and_restored_after_each_value_comes_to_the_same(
    values: list[float],
    patience: int,
    min_delta: float,
    min_epochs: int,
    check_finite: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    settings: dict[str, Any] = {
        "patience": patience, "min_delta": min_delta, "min_epochs": min_epochs, "check_finite": check_finite
    }  # fmt: skip
    watch = other = Watch("validation_loss", rules(**settings))
    for number, value in enumerate(values, 1):
        measurement = Measurement(value=value, epoch=number, step=number, epochs_done=number)
        restored = Watch("validation_loss", rules(**settings))
        restored.load_state_dict(other.state_dict())
        other = restored
        assert watch.add(measurement) == (other.add(measurement) if other is not watch else None)
        assert watch.reason() == other.reason()
        assert watch.reason() is None or number >= min_epochs


@pytest.mark.parametrize(
    ("values", "changes", "reason"),
    [
        ([0.5, 0.6, 0.7], {}, "validation_loss has not improved for 2 validations; best 0.5 in epoch 1, step 10"),
        (
            [0.5, 0.6],
            {"patience": 1},
            "validation_loss has not improved for 1 validation; best 0.5 in epoch 1, step 10",
        ),
        (
            [math.nan, math.nan],
            {},
            "validation_loss has not improved for 2 validations; it never was finite",
        ),
        (
            [0.5, math.nan],
            {"check_finite": True},
            "validation_loss is nan in epoch 2, step 20, which is not finite; best 0.5 in epoch 1, step 10",
        ),
        (
            [0.5, 3.25],
            {"divergence_threshold": 3.0},
            (
                "validation_loss is 3.25 in epoch 2, step 20, which is above the divergence threshold 3; "
                "best 0.5 in epoch 1, step 10"
            ),
        ),
        (
            [0.5, math.inf],
            {"divergence_threshold": 3.0},
            (
                "validation_loss is inf in epoch 2, step 20, which is above the divergence threshold 3; "
                "best 0.5 in epoch 1, step 10"
            ),
        ),
        (
            [0.5, 0.1],
            {"divergence_threshold": 0.2, "is_higher_better": True},
            (
                "validation_loss is 0.1 in epoch 2, step 20, which is below the divergence threshold 0.2; "
                "best 0.5 in epoch 1, step 10"
            ),
        ),
        (
            [0.5, 0.25],
            {"stopping_threshold": 0.25},
            "validation_loss reached 0.25 in epoch 2, step 20; the goal was 0.25",
        ),
    ],
    ids=repr,
)
def test_reason_says_what_was_seen_and_what_was_best(values: list[float], changes: dict[str, Any], reason: str) -> None:
    stopped, watch = watched(values, **changes)
    assert (stopped, watch.reason()) == (len(values), reason)


def test_training_value_counts_epochs() -> None:
    _, watch = watched([0.5, 0.6, 0.7], "training_loss")
    assert watch.reason() == "training_loss has not improved for 2 epochs; best 0.5 in epoch 1, step 10"


@pytest.mark.parametrize("value", [3.0, 0.5, math.nan])
def test_value_at_the_bound_or_that_is_no_number_is_not_beyond_it(value: float) -> None:
    assert watched([0.5, value], divergence_threshold=3.0)[0] is None


@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf, 0.26])
def test_goal_is_reached_by_finite_values_only(value: float) -> None:
    assert watched([0.5, value], stopping_threshold=0.25)[0] is None


def test_value_that_reaches_the_goal_is_the_best_however_little_it_is_better() -> None:
    stopped, watch = watched([0.5, 0.26, 0.25], stopping_threshold=0.25, min_delta=0.1)
    assert (stopped, watch.best and watch.best.value) == (3, 0.25)


def test_small_steps_add_up_to_an_improvement() -> None:
    stopped, watch = watched([1.0, 0.96, 0.89, 0.85, 0.84], min_delta=0.1)
    assert (stopped, watch.best and watch.best.value) == (5, 0.89)


@pytest.mark.parametrize(
    ("monitor", "expected"),
    [
        ("validation_loss", False),
        ("validation_accuracy", True),
        ("validation_thing", None),
        ("validation_accuracy_loss", None),
    ],
)
def test_direction_is_taken_from_the_name_unless_it_says_nothing_or_both(
    monitor: str,
    expected: bool | None,  # noqa: FBT001 - an expected value
) -> None:
    assert is_higher_better(monitor) is expected


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("val_loss", "validation_loss"),
        ("valid_acc", "validation_acc"),
        ("train_loss", "training_loss"),
        ("eval_f1", "validation_f1"),
        ("loss", "validation_loss"),
        ("accuracy", "validation_accuracy"),
        ("metrics/val_accuracy", "validation_accuracy"),
    ],
)
def test_names_of_other_trainers_are_translated(name: str, ours: str) -> None:
    assert in_our_words(name) == ours


def test_phase_is_taken_from_the_name() -> None:
    assert [is_of_validation(name) for name in ("validation_loss", "training_validation_loss")] == [True, False]
