"""Weights of a plugin's that take the place of the model's own while it is validated."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bz import Plugin, TrainingContext
from bz.testing import RecordingPlugin, tiny_spec, train
from bz.training.checkpoint import find_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Zeros(Plugin):
    """Has the model validated with zeros; notes the weights that hooks see."""

    name = "zeros"

    def __init__(self) -> None:
        self.seen: dict[str, bool] = {}

    def evaluation_weights(self, context: TrainingContext) -> Mapping[str, torch.Tensor]:
        return {name: torch.zeros_like(value) for name, value in context.model.state_dict().items()}

    def start_validation_loop(self, context: TrainingContext) -> None:
        self.seen["start_validation_loop"] = is_zero(context)

    def end_validation_loop(self, context: TrainingContext) -> None:
        self.seen["end_validation_loop"] = is_zero(context)

    def end_epoch(self, context: TrainingContext) -> None:
        self.seen["end_epoch"] = is_zero(context)


def is_zero(context: TrainingContext) -> bool:
    return not any(value.any() for value in context.model.state_dict().values())


def weights(model: torch.nn.Module) -> list[Any]:
    return [tensor.tolist() for tensor in model.state_dict().values()]


def test_validation_uses_the_weights_of_the_plugin_and_training_its_own() -> None:
    plain, other, plugin = tiny_spec(), tiny_spec(), Zeros()
    train(plain, epochs=2, seed=1)
    result = train(other, plugin, epochs=2, seed=1)
    assert plugin.seen == {"start_validation_loop": True, "end_validation_loop": True, "end_epoch": False}
    assert result.validation_loss == pytest.approx(float(torch.tensor(3.0).log()))  # three classes, all alike
    assert weights(other.model) == weights(plain.model)


def test_stop_inside_the_validation_saves_the_weights_that_were_trained(tmp_path: Path) -> None:
    plain = tiny_spec()
    train(plain, epochs=1, seed=1)

    def stop(hook: str, context: TrainingContext) -> None:
        if hook == "end_validation_batch":
            context.request_stop("enough", when="batch")

    train(tiny_spec(), Zeros(), RecordingPlugin(stop), epochs=1, seed=1, run_dir=tmp_path)
    saved = find_checkpoint(tmp_path).state["model_state_dict"]
    assert [tensor.tolist() for tensor in saved.values()] == weights(plain.model)


def test_error_inside_the_validation_leaves_the_weights_that_were_trained() -> None:
    plain, failing = tiny_spec(), tiny_spec()
    train(plain, epochs=1, seed=1)

    def fail(_context: TrainingContext, _batch: Any) -> torch.Tensor:
        raise RuntimeError("broken")

    failing.validation_step = fail
    with pytest.raises(RuntimeError, match="broken"):
        train(failing, Zeros(), epochs=1, seed=1)
    assert weights(failing.model) == weights(plain.model)


class Answers(Plugin):
    """Answers with whatever it is given."""

    name = "answers"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def evaluation_weights(self, context: TrainingContext) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (ValueError("no weights today"), "no weights today"),
        ({"9.weight": torch.zeros(1)}, "the model has no '9.weight'"),
        ({"0.bias": torch.zeros(3)}, "'0.bias' is (3,), in the model (8,)"),
    ],
)
def test_plugin_that_fails_is_reported_and_the_model_validated_as_it_is(
    answer: Any, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain, other = tiny_spec(), tiny_spec()
    expected = train(plain, epochs=2, seed=1)
    with caplog.at_level(logging.ERROR):
        result = train(other, Answers(answer), epochs=2, seed=1)
    assert result.history == expected.history
    assert "plugin 'answers' failed in evaluation_weights" in caplog.text
    assert text in caplog.text


def test_first_answer_counts_and_none_is_no_answer() -> None:
    zeros = Zeros()
    result = train(tiny_spec(), Answers(None), zeros, Answers({"0.bias": torch.ones(8)}), epochs=1)
    assert zeros.seen["start_validation_loop"]
    assert [usage.failures for usage in result.plugin_usage] == [0, 0, 0]
