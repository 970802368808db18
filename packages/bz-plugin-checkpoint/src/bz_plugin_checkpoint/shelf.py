"""The checkpoints of one run on disk: which there are, which is on its way, which go."""

from __future__ import annotations

import logging
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from bz.durable import remove_leftovers
from bz_plugin_checkpoint.alias import point
from bz_plugin_checkpoint.retention import Checkpoint, Position, Rules, position_of

logger = logging.getLogger(__name__)

BEST: Final = "best.pth"
LAST: Final = "last.pth"
_NAME: Final = re.compile(r"checkpoint_epoch_([0-9]+)(?:_step_([0-9]+)|_loss_[^/]+)\.pth")


def file_name(epoch: int, *, step: int | None, loss: float) -> str:
    """Return the name of a checkpoint: with the step inside an epoch, with the loss at its end."""
    return (
        f"checkpoint_epoch_{epoch}_loss_{loss:.4f}.pth" if step is None else f"checkpoint_epoch_{epoch}_step_{step}.pth"
    )


class Shelf:
    """Keeps the books about one folder, and puts it in order.

    A checkpoint that was asked for counts only when it is on disk. Nothing is deleted but what
    this run wrote.

    A run that goes on from an earlier checkpoint may find files of what it did after it, before it
    was killed. They belong to a future that it is about to walk through again: each stays until
    it is written anew, or until the run has a checkpoint as far on as the last of them.

    Args:
        folder: Where the files are; made with the first one.
        rules: What is kept.
    """

    def __init__(self, folder: Path, rules: Rules) -> None:
        self.folder = folder
        self.rules = rules
        self.checkpoints: list[Checkpoint] = []
        self._expected: list[Checkpoint] = []
        self._future: dict[str, Position] = {}
        self._is_future_ours = False
        self._protected: set[str] = set()
        self._aliased: dict[str, Checkpoint] = {}
        self._undeletable: set[str] = set()

    def expect(self, checkpoint: Checkpoint) -> Path:
        """Note that this one was asked for; return its path."""
        self._expected = [*self._expected[-1:], checkpoint]  # the one before may still be on its way
        return self.folder / checkpoint.name

    def add_to(self, checkpoint: Checkpoint) -> bool:
        """Let the checkpoint that has the same name, thus the same step, be this one too; False if there is none."""
        name, value = checkpoint.name, checkpoint.value

        def merged(one: Checkpoint) -> Checkpoint:
            if one.name != name:
                return one
            return replace(
                one,
                value=one.value if value is None else value,
                is_regular=one.is_regular or checkpoint.is_regular,
                is_milestone=one.is_milestone or checkpoint.is_milestone,
            )

        self._expected = [merged(one) for one in self._expected]
        self.checkpoints = [merged(one) for one in self.checkpoints]
        return any(one.name == name for one in (*self._expected, *self.checkpoints))

    def confirm(self, path: Path | None) -> bool:
        """Take in what is now on disk at `path`; return whether it is one that was asked for."""
        arrived = [one for one in self._expected if self.folder / one.name == path]
        self._expected = [one for one in self._expected if one not in arrived]
        names = {one.name for one in arrived}
        self.checkpoints = [one for one in self.checkpoints if one.name not in names] + arrived
        return bool(arrived)

    def put_in_order(self) -> OSError | None:
        """Point `best.pth` and `last.pth` at what they promise, then delete what no rule keeps.

        Returns:
            Why a name could not be pointed, or None. What cannot be deleted is a warning. Both are
            tried again the next time.
        """
        if self._has_caught_up():
            self._drop_the_future()
            self.checkpoints = [one for one in self.checkpoints if (self.folder / one.name).exists()]
        problems = [self._point(BEST, self.rules.best(self.checkpoints)), self._point(LAST, self._newest())]
        for surplus in self.rules.surplus(self.checkpoints):
            if self._delete(surplus.name):
                self.checkpoints.remove(surplus)
        return next(filter(None, problems), None)

    def _newest(self) -> Checkpoint | None:
        return max(self.checkpoints, key=lambda one: one.position, default=None)

    def _point(self, alias: str, target: Checkpoint | None) -> OSError | None:
        if target is None or self._aliased.get(alias) == target or not (self.folder / target.name).exists():
            return None
        try:
            point(self.folder / alias, self.folder / target.name)
        except OSError as error:
            return error
        self._aliased[alias] = target
        return None

    def _delete(self, name: str) -> bool:
        """Delete a file; return whether it is gone. The file that the run goes on from stays."""
        path = self.folder / name
        if name in self._protected:
            return False
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            if name not in self._undeletable:
                logger.warning("cannot delete the old checkpoint %s: %s; trying again", path, error.strerror or error)
            self._undeletable.add(name)
            return False
        return True

    def resume(self, epoch: int, global_step: int, resumed_from: Path | None, *, is_own_folder: bool) -> OSError | None:
        """Compare the books, as a checkpoint had them, with the folder; finish what a kill left undone.

        Args:
            epoch: Where the run goes on.
            global_step: Where the run goes on.
            resumed_from: The file it goes on from, which is not deleted as long as this session lasts.
            is_own_folder: Whether nobody but this run writes to the folder.

        Returns:
            As `put_in_order`.
        """
        if is_own_folder:
            remove_leftovers(self.folder)
        for one in self._expected:
            if (self.folder / one.name).exists():
                self.confirm(self.folder / one.name)
                self._protected = {one.name}
        self._expected = []
        self._protected |= {path.name for path in self._files() if _is_same(path, resumed_from)}
        self._is_future_ours = is_own_folder
        self._future = self._find_future(position_of(epoch, global_step))
        return None if self._future else self.put_in_order()

    def _files(self) -> list[Path]:
        return [path for path in self.folder.glob("checkpoint_epoch_*.pth") if _NAME.fullmatch(path.name)]

    def _find_future(self, here: Position) -> dict[str, Position]:
        left_alone = self._protected | {one.name for one in self.checkpoints}
        places = {path.name: _position(path.name) for path in self._files() if path.name not in left_alone}
        return {name: place for name, place in places.items() if place > here or name in self._future}

    def _has_caught_up(self) -> bool:
        """Whether the run has a checkpoint as far on as the last file of the other future, if there is any."""
        newest = self._newest()
        return not self._future or (newest is not None and newest.position >= max(self._future.values()))

    def _drop_the_future(self) -> None:
        """Delete what the run did not write anew, unless it may be somebody else's."""
        written = {one.name for one in self.checkpoints}
        left = {name: place for name, place in self._future.items() if self._is_future_ours and name not in written}
        self._future = {name: place for name, place in left.items() if not self._delete(name)}

    def forget_values(self) -> None:
        """Compare nothing with what was written so far, since it was measured by something else."""
        self.checkpoints = [replace(one, value=None) for one in self.checkpoints]

    def state_dict(self) -> dict[str, Any]:
        """Return the books as plain values."""
        return {
            "checkpoints": [asdict(one) for one in self.checkpoints],
            "expected": [asdict(one) for one in self._expected],
            "future": list(self._future),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the books of a checkpoint; `resume` then compares them with the folder."""
        self.checkpoints = [Checkpoint(**one) for one in state["checkpoints"]]
        self._expected = [Checkpoint(**one) for one in state["expected"]]
        self._future = {name: _position(name) for name in state["future"]}


def _position(name: str) -> Position:
    match = _NAME.fullmatch(name)
    assert match is not None
    return position_of(int(match[1]), int(match[2]) if match[2] else None)


def _is_same(path: Path, other: Path | None) -> bool:
    return other is not None and other.exists() and path.samefile(other)
