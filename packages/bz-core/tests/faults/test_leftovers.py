"""What a killed process left is cleared away, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from bz.durable import remove_leftovers, replacing
from bz.testing import tiny_spec, train
from faults.disk import CrashAt, Crashed, watched


def leave_one_behind(folder: Path, name: str) -> str:
    """Die between the making of a temporary file and its rename; return the name of the file."""
    before = set(folder.iterdir())
    with pytest.raises(Crashed), watched(folder, CrashAt(3)), replacing(folder / name) as file:
        file.write(b"half")
    (left,) = set(folder.iterdir()) - before
    return left.name


def test_leftovers_of_any_name_are_removed_and_files_of_others_stay(tmp_path: Path) -> None:
    names = ["epoch_1_step_3.pth", "line\nbreak", ".hidden", "ü" * 100]
    left = [leave_one_behind(tmp_path, name) for name in names]
    assert all(name.startswith(".") and name.endswith(".tmp") for name in left)
    others = [".notes.tmp", "x.0123abcd.tmp", ".x.0123abcg.tmp", ".x.0123abcd.tmp.txt", "epoch_1_step_3.pth"]
    for name in others:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_session_begins_by_clearing_its_folder_of_checkpoints(tmp_path: Path) -> None:
    train(tiny_spec(), epochs=1, run_dir=tmp_path)
    leave_one_behind(tmp_path / "state", "epoch_2_step_6.pth")
    train(tiny_spec(), epochs=1, run_dir=tmp_path, resume=tmp_path)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["epoch_1_step_3.pth"]


def test_folder_that_is_not_there_has_no_leftovers(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []
