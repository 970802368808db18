"""Any sequence of saves, deaths, damage, resumes and refused deletions keeps the newest state that can be trusted."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bz import CheckpointError
from bz.training.checkpoint import RollingCheckpoints, find_checkpoint, read_checkpoint, write_checkpoint
from faults.disk import CrashAt, Crashed, FailDeletes, watched


class StoreMachine(RuleBasedStateMachine):
    """Knows what must be in the folder: `sure` is there and whole, `maybe` was under way when a process died.

    Both map the step of a checkpoint to its value.
    """

    def __init__(self) -> None:
        super().__init__()
        self.run_dir = Path(tempfile.mkdtemp())
        self.keep = 2
        self.step = 0
        self.sure: dict[int, float] = {}
        self.maybe: dict[int, float] = {}
        self.damaged: set[int] = set()
        self.numbers = random.Random(0)

    def teardown(self) -> None:
        shutil.rmtree(self.run_dir)

    @property
    def rolling(self) -> RollingCheckpoints:
        return RollingCheckpoints(self.run_dir / "state", keep=self.keep)

    def path_of(self, step: int) -> Path:
        return self.rolling.path_for(1 + step // 10, step)

    def write(self) -> None:
        value = self.numbers.random()
        self.maybe[self.step] = value
        state: dict[str, Any] = {"weights": torch.full((500,), value), "epoch": 1 + self.step // 10}
        write_checkpoint({**state, "bz": {"global_step": self.step}}, self.path_of(self.step))
        self.sure[self.step] = self.maybe.pop(self.step)
        self.damaged.discard(self.step)

    def expect_prune(self) -> None:
        """Take away what a prune deletes: all but the newest files, whole or not."""
        steps = sorted({*self.sure, *self.maybe, *self.damaged}, reverse=True)
        for step in steps[self.keep :]:
            self.sure.pop(step, None)
            self.maybe.pop(step, None)
            self.damaged.discard(step)

    @rule(steps=st.integers(1, 12))
    def save(self, steps: int) -> None:
        self.step += steps
        self.write()
        self.look_at_what_may_be()
        self.rolling.prune()
        self.expect_prune()
        assert len(list((self.run_dir / "state").glob("*.pth"))) <= self.keep

    @rule(steps=st.integers(1, 12), point=st.integers(1, 30))
    def die_in_a_save(self, steps: int, point: int) -> None:
        self.step += steps
        crash = CrashAt(point)
        try:
            with watched(self.run_dir, crash):
                self.write()
                self.look_at_what_may_be()
                self.rolling.prune()
        except Crashed:
            self.may_be_pruned()
        else:
            self.expect_prune()

    def may_be_pruned(self) -> None:
        """Move to `maybe` what the prune after a durable save may have deleted by the time the process died."""
        if self.step not in self.sure:
            return
        for step in sorted({*self.sure, *self.damaged}, reverse=True)[self.keep :]:
            if step in self.sure:
                self.maybe[step] = self.sure.pop(step)

    def look_at_what_may_be(self) -> None:
        """Make up the mind about files that were under way: each is there or not."""
        for step in [step for step in self.maybe if step != self.step]:
            value = self.maybe.pop(step)
            if self.path_of(step).exists():
                self.sure[step] = value

    @rule(steps=st.integers(1, 12))
    def save_while_deletions_are_refused(self, steps: int) -> None:
        self.step += steps
        self.write()
        with watched(self.run_dir, FailDeletes()):
            self.rolling.prune()
        for step in self.sure:
            assert self.path_of(step).exists()

    @precondition(lambda self: self.sure)
    @rule(data=st.data(), place=st.floats(0, 1, exclude_max=True), kind=st.sampled_from(["cut", "flip", "zero"]))
    def damage(self, data: st.DataObject, place: float, kind: str) -> None:
        step = data.draw(st.sampled_from(sorted(self.sure)))
        path = self.path_of(step)
        content = bytearray(path.read_bytes())
        index = int(place * len(content))
        if kind == "cut":
            del content[index:]
        elif kind == "flip":
            content[index] ^= 1
        else:
            content[index:] = bytes(len(content) - index)
        path.write_bytes(content)
        del self.sure[step]
        self.damaged.add(step)

    @rule()
    def resume(self) -> None:
        """Look for the newest, as a session does; it must have right values and be no older than any sure one."""
        try:
            found = find_checkpoint(self.run_dir)
        except CheckpointError:
            assert not self.sure
            return
        step = found.state["bz"]["global_step"]
        allowed = self.sure | self.maybe
        assert step >= max(self.sure, default=0)
        assert found.state["weights"].unique().tolist() == torch.tensor([allowed[step]]).tolist()
        assert {self.path_of(one) for one in self.damaged if one > step} >= {error.path for error in found.skipped}
        self.damaged = {one for one in self.damaged if one < step}
        self.step = max(self.step, step)
        self.rolling.set_aside_newer(found.state["epoch"], step)
        assert [path for path in (self.run_dir / "state").iterdir() if path.suffix == ".tmp"] == []

    @rule(keep=st.integers(1, 4))
    def change_the_number_kept(self, keep: int) -> None:
        self.keep = keep

    @invariant()
    def what_is_durable_is_whole(self) -> None:
        for step, value in self.sure.items():
            assert read_checkpoint(self.path_of(step))["weights"][0] == torch.tensor(value)


StoreMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("BZ_STORE_EXAMPLES", "40")), stateful_step_count=25
)
TestStoreMachine = StoreMachine.TestCase
