"""What is taken from the names of measured values."""

import pytest

from bz.monitoring import named_directions


@pytest.mark.parametrize(
    "name",
    [
        "validation_loss", "training_loss", "MeanSquaredError", "word_error_rate", "log_loss", "RMSE", "val/loss",
        "kl_divergence",
    ],
)  # fmt: skip
def test_lower_is_better_where_a_word_says_so(name: str) -> None:
    assert named_directions(name) == (True, False)


@pytest.mark.parametrize(
    "name",
    ["validation_accuracy", "MulticlassAUROC", "f1", "F1Score", "R2Score", "r2", "mAP", "top5 ACC", "bleu4_score"],
)
def test_higher_is_better_where_a_word_says_so(name: str) -> None:
    assert named_directions(name) == (False, True)


@pytest.mark.parametrize("name", ["accuracy_loss", "error_score", "LossOfPrecision"])
def test_name_can_speak_of_both_directions(name: str) -> None:
    assert named_directions(name) == (True, True)


@pytest.mark.parametrize("name", ["", "thing", "validation_", "glossary", "mapped", "terrible", "Größe", "42"])
def test_word_that_is_not_known_as_a_whole_says_nothing(name: str) -> None:
    assert named_directions(name) == (False, False)
