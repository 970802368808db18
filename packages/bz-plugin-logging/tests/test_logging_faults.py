"""Kill, full disk, and a folder that cannot be written: the log stays whole, and the run goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bz_plugin_logging.formats import JsonList
from bz_plugin_logging.logfile import LogFile
from bz_plugin_logging.twin import TwinFile

SCRIPTS = Path(__file__).parent

needs_posix = pytest.mark.skipif(os.name != "posix", reason="forks, and limits the size of files")


def run_script(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / name), *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@needs_posix
def test_log_is_whole_wherever_the_process_is_killed(tmp_path: Path) -> None:
    finished = run_script("kill_rounds.py", "60", cwd=tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    result = json.loads(finished.stdout)
    assert result["killed"] == 60
    assert result["broken"] == []
    assert result["lengths"] > 20  # the moments differed


@needs_posix
def test_file_is_whole_when_the_kill_hits_the_writing_itself(tmp_path: Path) -> None:
    finished = run_script("kill_writes.py", "40", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert result["broken"] == 0
    assert result["lengths"] > 1


@needs_posix
def test_full_disk_quarantines_the_plugin_and_the_run_finishes(tmp_path: Path) -> None:
    finished = run_script("full_disk.py", "2000", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    events = json.loads((tmp_path / "training_log.json").read_text(encoding="utf-8"))
    last = len(events) - 1
    assert [event.get("epoch") for event in events] == [None, *range(1, last + 1)]
    assert 4 < last < 10
    assert [path.name for path in tmp_path.iterdir()] == ["training_log.json"]
    assert json.loads(finished.stdout) == {"status": "completed", "epochs": 30, "failures": 4, "is_quarantined": True}
    where = f"plugin 'logging' failed in end_epoch (epoch {last + 1}, step {last + 1})"
    assert f"{where}: OSError: [Errno 27] File too large" in finished.stderr


@needs_posix
def test_events_of_a_full_disk_are_written_when_there_is_room_again(tmp_path: Path) -> None:
    finished = run_script("full_disk.py", "2000", "8", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    events = json.loads((tmp_path / "training_log.json").read_text(encoding="utf-8"))
    assert [event.get("epoch") for event in events] == [None, *range(1, 31), None]
    assert json.loads(finished.stdout)["failures"] in {1, 2}


def event(number: int) -> dict[str, object]:
    return {"timestamp": str(number), "event": "epoch_complete", "epoch": number, "text": "x" * number}


def test_file_of_many_additions_equals_one_written_at_once(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log.json", JsonList())
    for number in range(200):
        log.add(event(number))
        log.write()
    log.close()
    expected = json.dumps([event(number) for number in range(200)], indent=2)
    assert (tmp_path / "log.json").read_text(encoding="utf-8") == expected


def test_addition_writes_no_more_than_itself_twice(tmp_path: Path) -> None:
    """The bytes that the process hands to the system, as counted by it, do not grow with the file."""
    counter = Path("/proc/self/io")
    if not counter.exists():
        pytest.skip("no count of written bytes here")

    def written() -> int:
        return int(counter.read_text(encoding="utf-8").split("wchar: ")[1].split()[0])

    log = LogFile(tmp_path / "log.json", JsonList())
    costs = []
    for _ in range(10_000):
        log.add(event(100))
        before = written()
        log.write()
        costs.append(written() - before)
    log.close()
    assert max(costs[2:]) == min(costs[2:]) < 500


def test_leftover_of_a_killed_run_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_bytes(b"former")
    (tmp_path / ".log.json.spare").hardlink_to(path)
    (tmp_path / ".log.json.twin").write_bytes(b"half")
    with path.open("rb") as former:
        file = TwinFile(path, b"]")
        file.replace(b"[1")
        file.append(b",2")
        file.append(b",3")
        file.close()
        assert former.read() == b"former"
    assert path.read_bytes() == b"[1,2,3]"
    assert [path.name for path in tmp_path.iterdir()] == ["log.json"]


def test_link_and_permissions_stay(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_bytes(b"")
    (tmp_path / "real.json").chmod(0o600)
    (tmp_path / "link.json").symlink_to("real.json")
    file = TwinFile(tmp_path / "link.json", b"]")
    file.replace(b"[1")
    file.append(b",2")
    file.append(b",3")
    file.close()
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_bytes() == b"[1,2,3]"
    assert (tmp_path / "real.json").stat().st_mode & 0o777 == 0o600


def test_file_that_somebody_else_writes_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    file = TwinFile(path, b"]")
    file.replace(b"[1")
    path.write_bytes(b"somebody else's")
    with pytest.raises(OSError, match="Something else writes to the log of this run"):
        file.append(b",2")
    assert path.read_bytes() == b"somebody else's"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
@needs_posix
def test_what_is_no_file_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log.json"
    if kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(OSError, match="Not a regular file"):
        TwinFile(path).replace(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["log.json"]
