"""A second name for a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bz_plugin_checkpoint.alias import point


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.pth").write_bytes(b"a")
    (tmp_path / "b.pth").write_bytes(b"b")
    return tmp_path


def test_alias_is_the_file_and_survives_its_deletion(folder: Path) -> None:
    point(folder / "best.pth", folder / "a.pth")
    assert (folder / "best.pth").samefile(folder / "a.pth")
    (folder / "a.pth").unlink()
    assert (folder / "best.pth").read_bytes() == b"a"


def test_alias_moves_on(folder: Path) -> None:
    for name in ("a.pth", "a.pth", "b.pth", "a.pth"):
        point(folder / "best.pth", folder / name)
        assert (folder / "best.pth").samefile(folder / name)
    assert sorted(path.name for path in folder.iterdir()) == ["a.pth", "b.pth", "best.pth"]


def test_what_a_killed_process_left_is_no_obstacle(folder: Path) -> None:
    (folder / ".best.pth.tmp").write_bytes(b"half")
    point(folder / "best.pth", folder / "a.pth")
    assert sorted(path.name for path in folder.iterdir()) == ["a.pth", "b.pth", "best.pth"]


def test_two_names_of_one_file_are_left_as_they_are(folder: Path) -> None:
    os.link(folder / "a.pth", folder / "best.pth")
    point(folder / "best.pth", folder / "a.pth")
    assert sorted(path.name for path in folder.iterdir()) == ["a.pth", "b.pth", "best.pth"]


def test_dangling_symbolic_link_is_replaced(folder: Path) -> None:
    (folder / "best.pth").symlink_to("gone.pth")
    point(folder / "best.pth", folder / "a.pth")
    assert not (folder / "best.pth").is_symlink()
    assert (folder / "best.pth").read_bytes() == b"a"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_alias_is_a_copy_where_no_link_can_be_made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    if Path("/dev/shm").stat().st_dev == folder.stat().st_dev:
        pytest.skip("the temporary folder is on the same file system")
    other = Path("/dev/shm") / tmp_path_factory.mktemp("alias").name / str(os.getpid())
    other.mkdir(parents=True)
    try:
        for name in ("a.pth", "b.pth"):
            point(other / "best.pth", folder / name)
            assert (other / "best.pth").read_bytes() == (folder / name).read_bytes()
        assert [path.name for path in other.iterdir()] == ["best.pth"]
    finally:
        for path in other.iterdir():
            path.unlink()
        other.rmdir()


def test_missing_target_leaves_the_alias_as_it_was(folder: Path) -> None:
    point(folder / "best.pth", folder / "a.pth")
    with pytest.raises(FileNotFoundError):
        point(folder / "best.pth", folder / "gone.pth")
    assert (folder / "best.pth").read_bytes() == b"a"
    assert sorted(path.name for path in folder.iterdir()) == ["a.pth", "b.pth", "best.pth"]
