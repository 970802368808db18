"""`bz doctor --resume`: whether the user's own project goes on bit for bit where it was killed."""

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from bz.cli.rehearsal import Rehearsal
from bz.cli.trace import LONG_ENOUGH, Step, first_difference, first_other_step
from bz.cli.wording import counted
from bz.errors import ConfigError

MIN_STEPS: Final = 2

_UNSEEDED: Final = (
    "Two runs with one seed should be equal. Usual causes: a random generator without a seed, the time or the order of "
    "files in the data, an operation that is not deterministic on this device (torch.use_deterministic_algorithms)."
)
_OTHER_DATA: Final = (
    "The data are other ones. Usual causes: a dataset, sampler or collate function with a random generator, a counter "
    "or a cache of its own, which no checkpoint holds. Draw from the shared generators of torch, NumPy or Python, or "
    "give the loader a state_dict."
)
_OTHER_LOSS: Final = (
    "The batch is the same and the loss is not. Usual causes: the model, the loss or the step keeps something that is "
    "in no state_dict (a plain attribute, a buffer with persistent=False, a counter in the script), or depends on the "
    "time."
)
_OTHER_STATE: Final = (
    "All losses are equal and the state is not. Usual causes: something that the training only writes, such as a "
    "counter or an average, or that is rebuilt from elsewhere when the script is loaded."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the rehearsals showed.

    Attributes:
        is_equal: Whether the killed run came to the state of the one that was not.
        is_deterministic: Whether two runs that nobody disturbed are equal.
        seed: The seed of all runs.
        steps: Steps of one run.
        is_cut: Whether the limit of steps ended the runs before their last epoch.
        kills: After which steps the run was killed.
        difference: The first thing that differs, or None.
        meaning: What that usually means, or None.
    """

    is_equal: bool
    is_deterministic: bool
    seed: int
    steps: int
    is_cut: bool
    kills: tuple[int, ...]
    difference: str | None = None
    meaning: str | None = None

    def as_record(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofRequest:
    """What is to be rehearsed; the fields are those of `Rehearsal`, and how often the run is killed."""

    script: Path
    config: Path | None
    overrides: tuple[str, ...]
    plugins: tuple[str, ...]
    max_steps: int
    kills: int


def prove(request: ProofRequest, say: Callable[[str], None]) -> Verdict:
    """Rehearse: twice undisturbed, once killed again and again; nothing of it is left behind.

    Args:
        request: What.
        say: Called with a sentence after each part.

    Raises:
        TrainingError: A rehearsal failed.
        ConfigError: A run has too few steps to be killed on the way.
    """
    with tempfile.TemporaryDirectory(prefix="bz-doctor-", ignore_cleanup_errors=True) as folder:
        reference = Rehearsal(
            script=str(request.script),
            config=str(request.config) if request.config is not None else None,
            overrides=(*request.overrides, "training.checkpoint_interval=1"),
            plugins=request.plugins,
            folder=folder,
            name="reference",
            stop_after=request.max_steps,
        )
        return _prove(reference, request.kills, say)


def _prove(reference: Rehearsal, kills: int, say: Callable[[str], None]) -> Verdict:
    reference.run()
    record, steps = reference.record(), reference.steps
    length = steps[-1].number if steps else 0
    say(f"Run 1, undisturbed: {counted(length, 'step')} with seed {record['seed']}.")
    if length < MIN_STEPS:
        raise ConfigError("A run of one step cannot be killed on the way; give --epochs or --max-steps more.")
    reference = replace(reference, overrides=(*reference.overrides, f"training.seed={record['seed']}"))
    facts = {"seed": record["seed"], "steps": length, "is_cut": record.get("reason") == LONG_ENOUGH}
    again = replace(reference, name="again")
    again.run()
    if found := _compare(again, reference, after=()):
        say("Run 2, undisturbed: it differs.")
        return Verdict(
            is_equal=False, is_deterministic=False, kills=(), difference=found[0], meaning=_UNSEEDED, **facts
        )
    say("Run 2, undisturbed: equal to the first.")
    moments = _choose_moments(length, kills)
    killed = _run_and_kill(reference, moments, length)
    say(f"Run 3, killed after {_listed(moments)} and resumed each time.")
    difference, meaning = _compare(killed, reference, after=moments) or (None, None)
    return Verdict(
        is_equal=difference is None,
        is_deterministic=True,
        kills=moments,
        difference=difference,
        meaning=meaning,
        **facts,
    )


def _choose_moments(length: int, kills: int) -> tuple[int, ...]:
    """Return the steps after which to kill, one by chance from each of equal parts of the run.

    Of several, the last is just before the end: what a resume has lost by then is most.
    """
    number = min(kills, length - 1)
    bounds = [1 + (length - 1) * part // number for part in range(number + 1)]
    moments = [random.SystemRandom().randrange(*part) for part in pairwise(bounds)]
    return (*moments[:-1], length - 1) if number > 1 else tuple(moments)


def _run_and_kill(reference: Rehearsal, moments: Sequence[int], length: int) -> Rehearsal:
    """Run with checkpoints inside the epochs, too: that is where a signal or a time limit puts them."""
    interval = max(1, length // (2 * len(moments) + 2))
    every = f"training.checkpoint_interval={counted(interval, 'step')}"
    killed = replace(reference, name="killed", overrides=(*reference.overrides, every))
    for index, moment in enumerate(moments):
        killed.run(attempt=index, kill_after=moment)
    killed.run(attempt=len(moments))
    return killed


def _listed(moments: Sequence[int]) -> str:
    noun = "step" if len(moments) == 1 else "steps"
    return f"{noun} {', '.join(map(str, moments))}"


def _compare(run: Rehearsal, reference: Rehearsal, after: Sequence[int]) -> tuple[str, str] | None:
    """Return the first difference and what it usually means, or None."""
    other = first_other_step(run.steps, reference.steps)
    where = first_difference(run.final_state().state, reference.final_state().state)
    if other is not None:
        return _describe_step(*other, where, after)
    if where is not None:
        return f"{where} differs at the end, and no loss before.", _OTHER_STATE
    return None


def _describe_step(step: Step, expected: Step, where: str | None, after: Sequence[int]) -> tuple[str, str]:
    since = f", resumed after the kill at step {after[step.attempt - 1]}" if step.attempt else ""
    what = "the batch" if step.data != expected.data else "the loss"
    at_the_end = f" At the end {where} differs." if where else " The state at the end is equal all the same."
    sentence = f"From {step} on{since}: {what} differs.{at_the_end}"
    return sentence, _OTHER_DATA if step.data != expected.data else _OTHER_LOSS
