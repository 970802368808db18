"""What is saved and kept: literal runs, and random ones against a second opinion."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from checkpoint_runs import saved, scripted_run
from hypothesis import given, settings
from hypothesis import strategies as st

from bz.testing import RecordingPlugin
from bz.training.checkpoint import read_checkpoint
from bz_plugin_checkpoint import SmartCheckpointPlugin

LOSSES = [0.9, 0.5, 0.7, 0.6, 0.4, 0.8]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["1", "2", "5"]),
        ({"max_checkpoints": 2}, ["2", "5"]),
        ({"max_checkpoints": 1}, ["5"]),
        ({"save_best_only": False}, ["2", "3", "4", "5", "6"]),
        ({"save_best_only": False, "max_checkpoints": 2}, ["5", "6"]),
        ({"save_best_only": False, "max_checkpoints": 1}, ["5", "6"]),
        ({"every": 2}, ["2"]),
        ({"every": "2 epochs", "save_best_only": False}, ["2", "4", "6"]),
        ({"max_checkpoints": 0, "keep_best": 3}, ["2", "4", "5"]),
        ({"max_checkpoints": 0, "keep_last": 2}, ["5", "6"]),
        ({"max_checkpoints": 0, "milestones": "3 epochs"}, ["3", "6"]),
        ({"max_checkpoints": 0, "milestones": "4 epochs"}, ["4"]),
        ({"max_checkpoints": 0, "keep_best": 2, "keep_last": 1, "milestones": 3}, ["2", "3", "5", "6"]),
        ({"max_checkpoints": 1, "keep_last": 2, "milestones": 4}, ["4", "5", "6"]),
        ({"mode": "max"}, ["1"]),
        ({"every": "2 steps"}, ["4", "5@14", "5", "6@16", "6"]),
    ],
    ids=repr,
)
def test_rules_save_and_keep(tmp_path: Path, settings: dict[str, Any], expected: list[str]) -> None:
    assert saved(tmp_path, LOSSES, **settings) == expected


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([math.nan, 0.5, math.nan, 0.4], ["2", "4"]),
        ([math.nan, math.nan], []),
        ([math.inf, 0.5, -math.inf, 0.4], ["2", "4"]),
        ([0.5, 0.5, 0.4, 0.4], ["1", "3"]),
        ([0.0, -1.0, -2.5], ["1", "2", "3"]),
    ],
    ids=repr,
)
def test_value_that_is_not_finite_never_wins(tmp_path: Path, losses: list[float], expected: list[str]) -> None:
    assert saved(tmp_path, losses) == expected


def test_best_takes_one_of_the_places(tmp_path: Path) -> None:
    losses = [0.3, 0.5, 0.6, 0.7, 0.8]
    for places, expected in ((1, ["1", "5"]), (2, ["1", "5"]), (3, ["1", "4", "5"])):
        settings = {"save_best_only": False, "max_checkpoints": places}
        assert saved(tmp_path / str(places), losses, **settings) == expected


def test_nan_is_kept_by_the_rules_that_do_not_compare(tmp_path: Path) -> None:
    assert saved(tmp_path, [0.5, math.nan, math.nan], max_checkpoints=0, keep_best=2, keep_last=1) == ["1", "3"]
    folder = tmp_path / "checkpoints"
    assert (folder / "checkpoint_epoch_3_loss_nan.pth").exists()
    assert (folder / "best.pth").samefile(folder / "checkpoint_epoch_1_loss_0.5000.pth")


class Case(NamedTuple):
    """A run, in which some files cannot be written, and some cannot be deleted for a while."""

    losses: list[float]
    settings: dict[str, Any]
    unwritable: frozenset[int]
    undeletable: frozenset[int]


EPOCHS = st.frozensets(st.integers(1, 9), max_size=3)
CASES = st.builds(
    Case,
    st.lists(
        st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.5, math.nan, math.inf, -math.inf]), min_size=1, max_size=9
    ),
    st.fixed_dictionaries(
        {
            "max_checkpoints": st.integers(0, 3),
            "save_best_only": st.booleans(),
            "mode": st.sampled_from(["min", "max"]),
            "every": st.integers(1, 3),
            "keep_best": st.integers(0, 3),
            "keep_last": st.integers(0, 3),
            "milestones": st.sampled_from([None, 2, 3]),
        }
    ).filter(lambda s: any((s["max_checkpoints"], s["keep_best"], s["keep_last"], s["milestones"]))),
    EPOCHS,
    EPOCHS,
)


def second_opinion(case: Case) -> list[set[int]]:
    """Return the epochs whose files the rules keep, after each epoch; from the whole history, in the plainest way."""
    rules, history, kept_after = case.settings, list[tuple[int, float, bool]](), list[set[int]]()

    def wins(value: float, other: float) -> bool:
        return value > other if rules["mode"] == "max" else value < other

    for epoch, value in enumerate(case.losses, 1):
        is_turn = epoch % rules["every"] == 0
        rivals = [other for _, other, _ in history if math.isfinite(other)]
        number_not_worse = sum(not wins(value, other) for other in rivals)
        is_finite = math.isfinite(value)
        is_regular = is_turn and rules["max_checkpoints"] > 0
        if rules["save_best_only"]:
            is_regular = is_regular and is_finite and number_not_worse == 0
        is_ranked = is_turn and is_finite and number_not_worse < rules["keep_best"]
        is_milestone = rules["milestones"] is not None and epoch % rules["milestones"] == 0
        is_wanted = is_regular or is_ranked or is_milestone or (is_turn and rules["keep_last"] > 0)
        if is_wanted and epoch not in case.unwritable:
            history.append((epoch, value, is_regular))
        kept_after.append(kept_of(history, rules))
    return kept_after


def kept_of(history: list[tuple[int, float, bool]], rules: dict[str, Any]) -> set[int]:
    sign = -1 if rules["mode"] == "max" else 1
    ranking = sorted((sign * value, epoch) for epoch, value, _ in history if math.isfinite(value))
    best = {epoch for _, epoch in ranking[:1]}
    kept = best | {epoch for _, epoch in ranking[: rules["keep_best"]]}
    kept |= {epoch for epoch, _, _ in history[-1:]}
    kept |= {epoch for epoch, _, _ in history[-rules["keep_last"] :] if rules["keep_last"]}
    kept |= {epoch for epoch, _, _ in history if rules["milestones"] and epoch % rules["milestones"] == 0}
    regular = [epoch for epoch, _, is_regular in history if is_regular]
    room = rules["max_checkpoints"]
    if room > 1 and not best <= set(regular[-room:]):
        room -= 1
    return kept | set(regular[-room:] if room else [])


class Saboteur:
    """Puts a folder where a file would be written or deleted, so that the system refuses; watches what vanishes."""

    def __init__(self, folder: Path, case: Case) -> None:
        self.folder, self.case = folder, case
        self.seen: set[str] = set()
        self.vanished_too_early: set[str] = set()
        self.on_disk_after: list[set[int]] = []
        self.is_undeletable: set[int] = set()

    def path(self, epoch: int) -> Path:
        return self.folder / f"checkpoint_epoch_{epoch}_loss_{self.case.losses[epoch - 1]:.4f}.pth"

    def before(self, hook: str, context: Any) -> None:
        """Run before the plugin's own hook."""
        if hook == "start_epoch":
            for epoch in self.case.unwritable:
                if epoch == context.epoch:
                    self.path(epoch).mkdir(parents=True)
        elif hook in {"save_checkpoint", "end_epoch"}:
            self.vanished_too_early |= self.seen - self.files()
            assert hook == "end_epoch" or read_checkpoint(context.checkpoint_path)

    def after(self, hook: str, context: Any) -> None:
        """Run after the plugin's own hook."""
        if hook == "save_checkpoint" and context.checkpoint_path.parent == self.folder:
            self.stop_or_start_deletes(context.epoch)
            self.seen = self.files()
        if hook in {"start_epoch", "end_training_session"} and context.epoch > len(self.on_disk_after) + (
            hook != "end_training_session"
        ):
            self.on_disk_after.append(self.epochs())

    def stop_or_start_deletes(self, epoch: int) -> None:
        for earlier in self.is_undeletable:
            self.path(earlier).rmdir()
            (self.folder / f"aside_{earlier}").rename(self.path(earlier))
        self.is_undeletable.clear()
        if epoch in self.case.undeletable and epoch not in self.case.unwritable:
            self.path(epoch).rename(self.folder / f"aside_{epoch}")
            self.path(epoch).mkdir()
            self.is_undeletable.add(epoch)

    def files(self) -> set[str]:
        return {path.name for path in self.folder.glob("checkpoint_*.pth")}

    def epochs(self) -> set[int]:
        unwritten = {self.path(epoch).name for epoch in self.case.unwritable if epoch <= len(self.case.losses)}
        return {int(name.split("_")[2]) for name in self.files() - unwritten}


@settings(max_examples=25)
@given(CASES)
def test_random_runs_agree_with_the_second_opinion(case: Case) -> None:
    run_dir = Path(tempfile.mkdtemp())
    try:
        check_case(case, run_dir)
    finally:
        shutil.rmtree(run_dir)


def check_case(case: Case, run_dir: Path) -> None:
    folder = run_dir / "checkpoints"
    saboteur = Saboteur(folder, case)
    plugin = SmartCheckpointPlugin(**case.settings)
    result, _ = scripted_run(
        case.losses, RecordingPlugin(saboteur.before), plugin, _After(saboteur), run_dir=run_dir, checkpoint_interval=0
    )
    assert [usage.failures for usage in result.plugin_usage] == [0, 0, 0]
    assert saboteur.vanished_too_early == set()
    expected = second_opinion(case)
    assert len(saboteur.on_disk_after) == len(expected)
    for epoch, (on_disk, kept) in enumerate(zip(saboteur.on_disk_after, expected, strict=True), 1):
        not_deleted = case.undeletable - case.unwritable
        assert kept <= on_disk, f"too little after epoch {epoch}"
        assert on_disk - kept <= not_deleted, f"too much after epoch {epoch}"
    check_names(saboteur, expected[-1], case)


def check_names(saboteur: Saboteur, kept: set[int], case: Case) -> None:
    """`best.pth` and `last.pth` hold the whole checkpoints of the right epochs."""
    if not kept:
        assert not list(saboteur.folder.glob("*.pth")) or case.unwritable
        return
    assert read_checkpoint(saboteur.folder / "last.pth")["epoch"] == max(kept)
    sign = -1 if case.settings["mode"] == "max" else 1
    ranking = [(sign * case.losses[epoch - 1], epoch) for epoch in kept if math.isfinite(case.losses[epoch - 1])]
    if ranking:
        assert read_checkpoint(saboteur.folder / "best.pth")["epoch"] == min(ranking)[1]
    else:
        assert not (saboteur.folder / "best.pth").exists()


class _After(RecordingPlugin):
    name = "after"

    def __init__(self, saboteur: Saboteur) -> None:
        super().__init__(saboteur.after)
