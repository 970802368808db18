"""How far a run goes, how much of its data it uses, and when it is validated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from bz import ConfigError, TrainingContext, TrainingSpec
from bz.testing import RecordingPlugin, tiny_spec, train
from bz.training.checkpoint import find_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRAINING = ["start_training_batch", "end_training_batch"]
VALIDATION = ["start_validation_loop", *2 * ["start_validation_batch", "end_validation_batch"], "end_validation_loop"]


def weights(model: torch.nn.Module) -> list[Any]:
    return [tensor.tolist() for tensor in model.state_dict().values()]


def columns(history: list[dict[str, float]], *names: str) -> list[tuple[float, ...]]:
    return [tuple(row[name] for name in names) for row in history]


def validated_at(history: list[dict[str, float]]) -> list[tuple[float, float]]:
    return [(row["epoch"], row["global_step"]) for row in history if "validation_loss" in row]


def test_max_steps_inside_an_epoch_ends_the_run_and_closes_the_epoch() -> None:
    plugin = RecordingPlugin()
    result = train(tiny_spec(), plugin, max_steps=4, epochs=9)
    assert (result.status, result.stop_reason) == ("completed", "max_steps 4 reached")
    assert (result.global_step, result.epochs) == (4, 2)
    assert plugin.events[-13:] == [
        "start_epoch",
        "start_training_loop",
        *TRAINING,
        "end_training_loop",
        *VALIDATION,
        "end_epoch",
        "end_training_session",
    ]
    assert columns(result.history, "epoch", "global_step") == [(1, 3), (2, 4)]


@pytest.mark.parametrize(("max_steps", "epochs"), [(3, 1), (6, 2), (7, 3)])
def test_max_steps_alone_takes_as_many_epochs_as_it_needs(max_steps: int, epochs: int) -> None:
    planned = []
    plugin = RecordingPlugin(lambda _, context: planned.append((context.epochs, context.max_steps)))
    result = train(tiny_spec(), plugin, max_steps=max_steps, epochs=None)
    assert (result.global_step, result.epochs) == (max_steps, epochs)
    assert set(planned) == {(epochs, max_steps)}


def test_max_steps_of_a_loader_without_a_length_leaves_the_epochs_open() -> None:
    class Endless:
        def __iter__(self) -> Iterator[Any]:
            while True:
                yield torch.ones(4, 4), torch.zeros(4, dtype=torch.int64)

    planned = []
    plugin = RecordingPlugin(lambda _, context: planned.append(context.epochs))
    result = train(tiny_spec(training_loader=Endless()), plugin, max_steps=5, epochs=None)
    assert (result.global_step, result.epochs) == (5, 1)
    assert set(planned) == {None}


def test_max_time_that_is_over_at_once_leaves_one_step() -> None:
    result = train(tiny_spec(), max_time="0.000001 s", epochs=None)
    assert (result.status, result.stop_reason) == ("completed", "max_time 0.000001 s reached")
    assert (result.global_step, result.epochs) == (1, 1)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, (None, None, None)), ({"max_steps": 2, "max_time": "5 min", "clip_grad_norm": 0.5}, (2, 300.0, 0.5))],
)
def test_context_of_a_script_says_its_limits(settings: dict[str, Any], expected: tuple[float | None, ...]) -> None:
    seen: set[tuple[float | None, ...]] = set()

    def look(_: str, context: Any) -> None:
        seen.add((context.max_steps, context.max_seconds, context.clip_grad_norm))

    train(tiny_spec(), RecordingPlugin(look), epochs=1, **settings)
    assert seen == {expected}


def test_max_time_counts_the_sessions_before(tmp_path: Path) -> None:
    train(tiny_spec(), epochs=1, run_dir=tmp_path)
    seconds = find_checkpoint(tmp_path).state["bz"]["seconds"]
    assert seconds > 0
    result = train(tiny_spec(), epochs=None, max_time=f"{seconds:.9f} s", run_dir=tmp_path, resume=tmp_path)
    assert (result.global_step, result.stop_reason) == (3, f"max_time {seconds:.9f}".rstrip("0") + " s reached")


def test_run_that_reached_its_steps_goes_on_exactly_when_it_is_given_more(tmp_path: Path) -> None:
    whole, extended, full, parts = tiny_spec(), tiny_spec(), RecordingPlugin(), RecordingPlugin()
    expected = train(whole, full, epochs=3)
    train(tiny_spec(), RecordingPlugin(), epochs=None, max_steps=4, run_dir=tmp_path)
    result = train(extended, parts, epochs=3, run_dir=tmp_path, resume=tmp_path)
    assert weights(extended.model) == weights(whole.model)
    assert result.history == expected.history
    for hook in ("end_training_loop", "end_validation_loop", "end_epoch"):
        assert parts.events.count(hook) == full.events.count(hook)


def test_run_that_reached_its_steps_comes_to_the_same_when_it_is_resumed_with_them(tmp_path: Path) -> None:
    expected = train(tiny_spec(), epochs=None, max_steps=4, run_dir=tmp_path)
    plugin = RecordingPlugin()
    result = train(tiny_spec(), plugin, epochs=None, max_steps=4, run_dir=tmp_path, resume=tmp_path)
    assert not set(TRAINING) & set(plugin.events)
    assert (result.status, result.global_step, result.epochs) == ("completed", 4, 2)
    assert result.history == expected.history


def test_checkpoint_of_a_plugin_at_the_end_of_a_cut_epoch_has_the_values_of_its_validation(tmp_path: Path) -> None:
    def save(hook: str, context: TrainingContext) -> None:
        if hook == "end_epoch":
            context.save_checkpoint("own.pth")

    result = train(tiny_spec(), RecordingPlugin(save), epochs=None, max_steps=2, run_dir=tmp_path)
    state = find_checkpoint(tmp_path / "own.pth").state
    assert state["validation_loss"] == result.validation_loss
    assert state["bz"]["batches_done"] == 2


def test_checkpoint_that_was_asked_for_is_written_when_the_validation_after_it_is_stopped(tmp_path: Path) -> None:
    def act(hook: str, context: TrainingContext) -> None:
        if hook == "end_training_batch" and context.global_step == 2:
            context.save_checkpoint("own.pth")
        if hook == "end_validation_batch":
            context.request_stop("enough", when="batch")

    train(tiny_spec(), RecordingPlugin(act), epochs=1, validation_interval="2 steps", run_dir=tmp_path)
    assert find_checkpoint(tmp_path / "own.pth").state["bz"]["next_part"] == "validation"


class Patient:
    """A metric that needs two batches."""

    def __init__(self) -> None:
        self.batches = 0

    def update(self, preds: Any, target: Any) -> None:
        self.batches += 1

    def compute(self) -> float:
        if self.batches < 2:
            raise ValueError("too few batches")
        return float(self.batches)

    def reset(self) -> None:
        self.batches = 0


def test_metric_that_cannot_be_computed_yet_does_not_end_the_run_at_an_inner_validation() -> None:
    result = train(tiny_spec(metrics={"patient": Patient()}), epochs=1, validation_interval="1 step")
    assert ["training_patient" in row for row in result.history] == [False, False, False, True]


def test_limit_of_training_batches_leaves_the_others_out() -> None:
    counts = []

    def look(hook: str, context: TrainingContext) -> None:
        if hook == "end_epoch":
            counts.append((context.training_batch_count, context.training_batches))

    train(tiny_spec(), RecordingPlugin(look), epochs=2, limit_train_batches=2)
    assert counts == [(2, 2), (2, 2)]


def test_limit_of_validation_batches_leaves_the_others_out() -> None:
    plugin = RecordingPlugin()
    train(tiny_spec(), plugin, epochs=1, limit_validation_batches=1)
    assert plugin.events.count("end_validation_batch") == 1


@pytest.mark.parametrize("setting", [{"limit_validation_batches": 0}, {"validation_interval": 0}])
def test_validation_can_be_left_out(setting: dict[str, Any]) -> None:
    plugin = RecordingPlugin()
    result = train(tiny_spec(), plugin, epochs=1, **setting)
    assert "start_validation_loop" not in plugin.events
    assert "validation_loss" not in result.history[0]


def test_stop_asked_for_when_a_checkpoint_was_loaded_leaves_the_epoch_where_it_is(tmp_path: Path) -> None:
    def stop_at(wanted: str, step: int) -> RecordingPlugin:
        def stop(hook: str, context: TrainingContext) -> None:
            if hook == wanted and context.global_step == step:
                context.request_stop("enough", when="batch")

        return RecordingPlugin(stop)

    train(tiny_spec(), stop_at("end_training_batch", 4), epochs=3, run_dir=tmp_path)
    result = train(tiny_spec(), stop_at("load_checkpoint", 4), epochs=3, run_dir=tmp_path, resume=tmp_path)
    assert (result.status, result.global_step) == ("stopped", 4)


@pytest.mark.parametrize("settings", [{"validation_interval": 0}, {"limit_validation_batches": 0}, {}])
def test_context_says_whether_the_model_is_validated(settings: dict[str, Any]) -> None:
    seen = []
    look = RecordingPlugin(lambda _, context: seen.append((context.has_validation, context.validation_batches)))
    train(tiny_spec(), look, epochs=1, **settings)
    assert set(seen) == ({(False, None)} if settings else {(True, 2)})


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ("1 epoch", [(1, 3), (2, 6), (3, 9), (4, 12)]),
        (2, [(2, 6), (4, 12)]),
        ("3 epochs", [(3, 9)]),
        ("5 steps", [(2, 5), (2, 6), (4, 10), (4, 12)]),  # the row of the epoch has the last one in it
        ("3 steps", [(1, 3), (1, 3), (2, 6), (2, 6), (3, 9), (3, 9), (4, 12), (4, 12)]),
        ("1 h", []),
    ],
)
def test_validation_is_due_at_its_interval(interval: Any, expected: list[tuple[int, int]]) -> None:
    result = train(tiny_spec(), epochs=4, validation_interval=interval)
    assert validated_at(result.history) == expected


def test_validation_inside_an_epoch_comes_between_two_batches_and_before_a_checkpoint(tmp_path: Path) -> None:
    plugin = RecordingPlugin()
    result = train(
        tiny_spec(), plugin, epochs=1, validation_interval="2 steps", checkpoint_interval="2 steps", run_dir=tmp_path
    )
    assert plugin.events[3:] == [
        *2 * TRAINING,
        *VALIDATION,
        "save_checkpoint",
        *TRAINING,
        "end_training_loop",
        "end_epoch",
        "save_checkpoint",
        "end_training_session",
    ]
    assert columns(result.history, "epoch", "global_step") == [(1, 2), (1, 3)]


def test_validation_by_the_clock_leaves_the_weights_alone() -> None:
    never, often = tiny_spec(), tiny_spec()
    train(never, epochs=3, validation_interval=0, seed=1)
    result = train(often, epochs=3, validation_interval="0.000001 s", seed=1)
    assert len(validated_at(result.history)) > 3
    assert weights(never.model) == weights(often.model)


def test_validation_before_the_first_epoch_has_a_row_of_its_own() -> None:
    plugin = RecordingPlugin()
    result = train(tiny_spec(), plugin, epochs=1, validate_first=True)
    assert plugin.events[:8] == ["start_training_session", *VALIDATION, "start_epoch"]
    assert columns(result.history, "epoch", "global_step") == [(0, 0), (1, 3)]
    assert "training_loss" not in result.history[0]
    assert result.epochs == 1


def test_validation_before_the_first_epoch_needs_something_to_validate() -> None:
    with pytest.raises(ConfigError, match=r"`training\.validate_first` is on and there is nothing to validate"):
        train(tiny_spec(validation_loader=None), epochs=1, validate_first=True)


def test_validation_before_the_first_epoch_is_not_repeated_by_a_resumed_run(tmp_path: Path) -> None:
    train(tiny_spec(), epochs=1, validate_first=True, run_dir=tmp_path)
    result = train(tiny_spec(), epochs=2, validate_first=True, run_dir=tmp_path, resume=tmp_path)
    assert columns(result.history, "epoch", "global_step") == [(0, 0), (1, 3), (2, 6)]


@pytest.mark.parametrize("stop_at", range(1, 9))
def test_run_stopped_at_any_batch_of_its_inner_validations_goes_on_exactly(stop_at: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 3, "validation_interval": "2 steps"}
    whole, resumed, full, parts = tiny_spec(), tiny_spec(), RecordingPlugin(), RecordingPlugin()
    expected = train(whole, full, **options)
    seen = 0

    def stop(hook: str, context: TrainingContext) -> None:
        nonlocal seen
        seen += hook == "end_validation_batch"
        if seen == stop_at and hook == "end_validation_batch":
            context.request_stop("enough", when="batch")

    train(tiny_spec(), RecordingPlugin(stop), run_dir=tmp_path, **options)
    result = train(resumed, parts, run_dir=tmp_path, resume=tmp_path, **options)
    assert weights(resumed.model) == weights(whole.model)
    assert result.history == expected.history
    repeated = ["load_checkpoint", "start_epoch", "start_training_loop", "save_checkpoint"]
    assert [hook for hook in parts.events if hook not in repeated] == [
        hook for hook in full.events if hook not in repeated
    ]


class Learner(torch.nn.Module):
    """Notes the batches that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.seen: list[tuple[bool, list[float]]] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.seen.append((self.training, inputs.flatten().tolist()))
        output: torch.Tensor = self.linear(inputs)
        return output


def learner_options(loader: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    model = Learner()
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.001),
        "loss_fn": torch.nn.MSELoss(),
        "training_loader": loader,
        "validation_loader": loader,
    }


def seen_by(spec: TrainingSpec) -> list[tuple[bool, list[float]]]:
    assert isinstance(spec.model, Learner)
    return spec.model.seen


def numbers(count: int = 12) -> TensorDataset:
    column = torch.arange(float(count)).unsqueeze(1)
    return TensorDataset(column, column)


@pytest.mark.parametrize("own_generator", [False, True])
def test_overfitting_trains_and_validates_on_the_same_few_batches(own_generator: bool) -> None:  # noqa: FBT001
    generator = torch.Generator().manual_seed(5) if own_generator else None
    spec = tiny_spec(**learner_options(DataLoader(numbers(), 3, shuffle=True, generator=generator)))
    train(spec, epochs=3, overfit_batches=2)
    first = seen_by(spec)[:2]
    assert [batch for _, batch in first] == [batch for _, batch in seen_by(spec)[2:4]]
    assert [is_training for is_training, _ in seen_by(spec)] == 3 * [True, True, False, False]
    assert {tuple(batch) for _, batch in seen_by(spec)} == {tuple(batch) for _, batch in first}


def test_overfitting_leaves_random_numbers_and_the_loader_alone() -> None:
    generator = torch.Generator().manual_seed(5)
    spec = tiny_spec(training_loader=DataLoader(numbers(), 3, shuffle=True, generator=generator))
    before = torch.get_rng_state(), generator.get_state()
    with pytest.raises(RuntimeError, match="mat1 and mat2"):  # the numbers do not fit the tiny model
        train(spec, epochs=1, overfit_batches=2)
    assert torch.equal(before[1], generator.get_state())
    assert torch.equal(before[0], torch.get_rng_state())


def test_overfitting_takes_the_same_batches_when_it_is_resumed(tmp_path: Path) -> None:
    options = learner_options(DataLoader(numbers(), 3, shuffle=True))
    train(tiny_spec(**options), epochs=1, overfit_batches=2, run_dir=tmp_path)
    torch.manual_seed(99)
    again = tiny_spec(**learner_options(DataLoader(numbers(), 3, shuffle=True)))
    train(again, epochs=2, overfit_batches=2, run_dir=tmp_path, resume=tmp_path)
    assert [batch for _, batch in seen_by(again)[:2]] == [batch for _, batch in options["model"].seen[:2]]


def test_limited_epochs_of_persistent_workers_go_on_exactly(tmp_path: Path) -> None:
    def spec() -> Any:
        loader = DataLoader(numbers(), 2, shuffle=True, num_workers=2, persistent_workers=True)
        return tiny_spec(**learner_options(loader))

    options: dict[str, Any] = {"limit_train_batches": 2, "validation_interval": 0}
    whole, resumed = spec(), spec()
    train(whole, epochs=4, **options)
    train(spec(), epochs=2, run_dir=tmp_path, **options)
    train(resumed, epochs=4, run_dir=tmp_path, resume=tmp_path, **options)
    assert seen_by(resumed) == seen_by(whole)[4:]
    assert weights(resumed.model) == weights(whole.model)


def test_loss_of_an_epoch_without_validation_is_not_that_of_the_one_before() -> None:
    seen = []

    def look(hook: str, context: TrainingContext) -> None:
        if hook == "end_epoch":
            seen.append((context.validation_batch_count, math.isnan(context.validation_loss)))

    train(tiny_spec(), RecordingPlugin(look), epochs=3, validation_interval="2 epochs")
    assert seen == [(0, True), (2, False), (0, True)]
