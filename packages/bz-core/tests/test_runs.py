"""Folders of runs and their records."""

import json
import platform
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from bz.errors import ConfigError
from bz.lock import hold
from bz.records import list_runs, read_run
from bz.runs import RunFolder, describe_run, set_aside


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


ROOT = Path("runs")


def start(run: RunFolder, settings: dict[str, Any] | None = None) -> None:
    run.start(describe_run(script=Path("train.py"), settings=settings or {}, seed=7, plugins={"console_out": "0.1.0"}))


def record_of(run: RunFolder) -> Any:
    return json.loads(run.record_path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_create_with_a_name_makes_the_folder() -> None:
    run = RunFolder.create(ROOT, "first.try-2")
    assert run.path == Path("runs/first.try-2")
    assert run.path.is_dir()
    assert run.log_path == Path("runs/first.try-2/bz.log")


def test_create_without_a_name_takes_date_and_time() -> None:
    name = RunFolder.create(ROOT).name
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", name)
    made_at = datetime.strptime(f"{name} {datetime.now().astimezone():%z}", "%Y-%m-%d_%H-%M-%S %z")
    assert abs((made_at - datetime.now().astimezone()).total_seconds()) < 60


def test_create_many_at_once_gives_each_a_folder_of_its_own() -> None:
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: RunFolder.create(ROOT).name, range(40)))
    assert len(set(names)) == 40
    assert any(name.endswith("-2") for name in names)


def test_create_with_the_name_of_another_run_is_refused() -> None:
    RunFolder.create(ROOT, "a")
    with pytest.raises(ConfigError) as caught:
        RunFolder.create(ROOT, "a")
    assert str(caught.value) == (
        "`--name`: runs/a exists already, and a run never overwrites another; take another name, "
        "go on with that run (`--resume a`), or begin anew and keep it aside (`--fresh`)."
    )
    assert caught.value.option == "--name"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a", "a/b", "a\\b", "/tmp/a", "a\0b", "a\nb", "a\n", "-a", ".a", "a.", "a b", "ä", "a" * 101],
)
def test_create_with_a_name_that_is_no_folder_name_is_refused(name: str, folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        RunFolder.create(ROOT, name)
    assert str(caught.value).startswith("`--name`: ")
    assert str(caught.value).endswith(
        "is no name for a run; accepted are up to 100 letters (a to z), digits, '.', '_' and '-', "
        "beginning with a letter or digit and not ending in '.'."
    )
    assert len(str(caught.value).splitlines()) == 1
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["con", "NUL", "com1.txt"])
def test_create_with_the_name_of_a_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is the name of a device on Windows"):
        RunFolder.create(ROOT, name)


def test_create_where_no_folder_can_be_made_says_why() -> None:
    ROOT.write_text("")
    with pytest.raises(ConfigError, match=r"^runs: the folder of the run cannot be made: File exists\.$"):
        RunFolder.create(ROOT)


def test_start_writes_what_the_run_was_made_of() -> None:
    run = RunFolder.create(ROOT, "a")
    start(run, {"training": {"epochs": 3}, "plugins": {"email": {"config": {"password": "canary", "b": "${B}"}}}})
    record = record_of(run)
    assert datetime.fromisoformat(record.pop("created_at")).tzinfo is not None
    assert record.pop("versions") == {
        "bz": metadata.version("bz-core"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "plugins": {"console_out": "0.1.0"},
    }
    assert [list(session) for session in record.pop("sessions")] == [["started_at"]]
    assert record == {
        "name": "a",
        "status": "running",
        "options": {},
        "script_sha256": None,
        "script": str(Path("train.py").absolute()),
        "settings": {
            "training": {"epochs": 3},
            "plugins": {"email": {"config": {"password": "**********", "b": "${B}"}}},
        },
        "seed": 7,
    }


def test_finish_adds_the_results_and_keeps_the_rest() -> None:
    run = RunFolder.create(ROOT, "a")
    start(run)
    run.finish("completed", seconds=1.5, epochs=3, training_loss=float("nan"), training_metrics={"a": float("inf")})
    record = record_of(run)
    assert record["status"] == "completed"
    assert record["seed"] == 7
    assert record["finished_at"] >= record["created_at"]
    assert (record["seconds"], record["epochs"]) == (1.5, 3)
    assert record["training_loss"] is None
    assert record["training_metrics"] == {"a": None}


def test_write_takes_any_value_and_gives_json() -> None:
    run = RunFolder.create(ROOT, "a")
    run.write(
        {
            "path": Path("x"),
            "when": datetime(2026, 11, 23, tzinfo=UTC),
            "set": {1},
            "odd": "\udcff",
            "inner": {3: (1, None)},
        }
    )
    assert record_of(run) == {
        "path": "x",
        "when": "2026-11-23T00:00:00+00:00",
        "set": [1],
        "odd": "\udcff",
        "inner": {"3": [1, None]},
        "settings": {},
    }


def test_write_that_fails_keeps_the_record_before() -> None:
    run = RunFolder.create(ROOT, "a")
    start(run)
    before = run.record_path.read_bytes()
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(RecursionError):
        run.update(loop=loop)
    assert run.record_path.read_bytes() == before
    assert [path.name for path in run.path.iterdir()] == ["run.json"]


def test_list_without_a_folder_of_runs_is_empty() -> None:
    assert list_runs(ROOT) == []


def test_list_is_by_age_and_tolerates_broken_folders() -> None:
    for name, created_at in (("a", "2026-11-23T10:00:00+01:00"), ("b", "2026-11-23T08:00:00+00:00")):
        RunFolder.create(ROOT, name).write({"status": "completed", "created_at": created_at})
    for name, content in (("c", "{"), ("d", "[]"), ("e", '{"status": 3}'), ("f", "[" * 100_000)):
        RunFolder.create(ROOT, name).record_path.write_text(content)
    RunFolder.create(ROOT, "g")
    RunFolder.create(ROOT, "h").write({"status": "failed", "created_at": "yesterday"})
    (ROOT / ".hidden").mkdir()
    (ROOT / "file").write_text("")
    assert [(run.name, run.status) for run in list_runs(ROOT)] == [
        *((name, "unreadable") for name in "cdefg"),
        ("h", "failed"),
        ("b", "completed"),
        ("a", "completed"),
    ]


def test_read_run_gives_its_record() -> None:
    start(RunFolder.create(ROOT, "a"))
    run = read_run(ROOT, "a")
    assert (run.name, run.path, run.status) == ("a", Path("runs/a"), "crashed")
    assert run.record["seed"] == 7
    assert run.created_at is not None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("fist", "There is no run \"fist\" in runs; the latest: first. Did you mean 'first'?"),
        ("zzz", 'There is no run "zzz" in runs; the latest: first.'),
    ],
)
def test_read_run_that_is_not_there_names_others(name: str, fault: str) -> None:
    RunFolder.create(ROOT, "first")
    with pytest.raises(ConfigError) as caught:
        read_run(ROOT, name)
    assert str(caught.value) == fault


def test_read_run_outside_the_folder_of_runs_is_refused() -> None:
    with pytest.raises(ConfigError, match="is no name for a run"):
        read_run(ROOT, "../other")


def test_run_that_somebody_works_on_is_running() -> None:
    run = RunFolder.create(ROOT, "a")
    start(run)
    with hold(run.path):
        assert [one.status for one in list_runs(ROOT)] == ["running"]
    assert [one.status for one in list_runs(ROOT)] == ["crashed"]


def test_seconds_of_all_sessions_are_added_up() -> None:
    run = RunFolder.create(ROOT, "a")
    facts = describe_run(script=Path("train.py"), settings={}, seed=7, plugins={})
    run.start(facts)
    created_at = record_of(run)["created_at"]
    run.finish("interrupted", seconds=1.5, epochs=1, reason="SIGINT received")
    run.go_on(facts, resumed_from=Path("a.pth"))
    assert "reason" not in record_of(run)
    run.go_on(facts, resumed_from=Path("b.pth"), lost_seconds=0.25)
    run.finish("completed", seconds=2.0, epochs=3)
    record = record_of(run)
    assert (record["seconds"], record["created_at"], record["status"]) == (3.75, created_at, "completed")
    assert [(one["status"], one["seconds"], one.get("resumed_from")) for one in record["sessions"]] == [
        ("interrupted", 1.5, None),
        ("crashed", 0.25, "a.pth"),
        ("completed", 2.0, "b.pth"),
    ]


def test_set_aside_takes_the_next_free_name() -> None:
    for expected in ("a.1", "a.2"):
        assert set_aside(RunFolder.create(ROOT, "a").path) == ROOT / expected


def test_git_commit_of_the_script_is_recorded() -> None:
    script = Path("project/train.py")
    script.parent.mkdir()
    script.write_text("1")

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        done = subprocess.run(["git", *who, *arguments], cwd="project", check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def described() -> Any:
        return describe_run(script=script, settings={}, seed=7, plugins={}).get("git")

    assert described() is None
    git("init", "-q")
    git("add", "train.py")
    git("commit", "-qm", "a")
    assert described() == {"commit": git("rev-parse", "HEAD"), "is_dirty": False}
    script.write_text("2")
    assert described() == {"commit": git("rev-parse", "HEAD"), "is_dirty": True}
