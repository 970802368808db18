"""A resumed run goes on with the same curves: nothing doubled, nothing missing, nothing that zigzags."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard_runs import AtBatch, Curves, board, curves, kill_at, load, stop_at, train
from tensorboard_server import Server, serve

from bz_plugin_tensorboard.events import EventFile

if TYPE_CHECKING:
    from bz.plugins import Plugin


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Curves:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(board(), run_dir=folder)
    return curves(folder)


def assert_same(found: Curves, expected: Curves) -> None:
    for points in found.values():
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps))
    assert found == expected


def resume(folder: Path, *plugins: Plugin, **options: Any) -> None:
    train(board(), *plugins, run_dir=folder, resume=folder, **options)


@pytest.mark.parametrize("step", [12, 16, 20])
def test_stop_inside_an_epoch_leaves_no_trace_in_the_curves(tmp_path: Path, uninterrupted: Curves, step: int) -> None:
    train(board(), stop_at(step), run_dir=tmp_path / "a")
    assert curves(tmp_path / "a")["loss/step"][-1][0] == step
    resume(tmp_path / "a")
    assert_same(curves(tmp_path / "a"), uninterrupted)


def test_stop_at_a_step_whose_rates_are_written_doubles_none_of_them(tmp_path: Path) -> None:
    train(board(log_every=3), run_dir=tmp_path / "whole")
    train(board(log_every=3), stop_at(12), run_dir=tmp_path / "a")
    train(board(log_every=3), run_dir=tmp_path / "a", resume=tmp_path / "a")
    assert_same(curves(tmp_path / "a"), curves(tmp_path / "whole"))


def test_several_resumes_leave_no_trace_in_the_curves(tmp_path: Path, uninterrupted: Curves) -> None:
    train(board(), stop_at(3), run_dir=tmp_path / "a")
    resume(tmp_path / "a", stop_at(17))
    resume(tmp_path / "a", stop_at(18))
    resume(tmp_path / "a")
    assert len(list((tmp_path / "a").glob("*tfevents*"))) == 4
    assert_same(curves(tmp_path / "a"), uninterrupted)


@pytest.mark.parametrize("step", [13, 20, 21])
def test_kill_inside_an_epoch_leaves_no_trace_in_the_curves(tmp_path: Path, uninterrupted: Curves, step: int) -> None:
    kill_at(step, tmp_path / "a")
    written = curves(tmp_path / "a")["loss/step"][-1][0]
    assert written == max(12, step // 5 * 5)  # the checkpoint is at 12, so points behind it are on disk
    resume(tmp_path / "a")
    assert_same(curves(tmp_path / "a"), uninterrupted)


def test_kill_in_the_middle_of_a_write_leaves_no_trace_in_the_curves(tmp_path: Path, uninterrupted: Curves) -> None:
    kill_at(21, tmp_path / "a")
    (path,) = (tmp_path / "a").glob("*tfevents*")
    os.truncate(path, path.stat().st_size - 5)
    resume(tmp_path / "a")
    assert_same(curves(tmp_path / "a"), uninterrupted)


def test_resumed_run_that_ends_before_the_killed_one_shows_none_of_its_points(tmp_path: Path) -> None:
    kill_at(35, tmp_path / "a")
    newest = max((tmp_path / "a" / "state").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(b"damaged")
    resume(tmp_path / "a", stop_at(14))
    found = curves(tmp_path / "a")
    assert [step for step, _ in found["loss/step"]] == list(range(1, 15))
    assert found["progress/epoch"] == [(12, 1.0)]
    with serve(tmp_path, fast=True) as server:
        server.wait_for_point("a", "loss/step", 14)
        assert server_curves(server, "a") == found


def test_epoch_that_ended_behind_a_checkpoint_at_its_last_step_is_not_doubled(
    tmp_path: Path, uninterrupted: Curves
) -> None:
    ask = AtBatch(24, lambda context: context.save_checkpoint("last_step.pth"))
    train(board(), ask, stop_at(30), run_dir=tmp_path / "a")
    assert curves(tmp_path / "a")["progress/epoch"] == [(12, 1.0), (24, 2.0)]
    train(board(), run_dir=tmp_path / "a", resume=tmp_path / "a" / "last_step.pth")
    assert_same(curves(tmp_path / "a"), uninterrupted)


def test_completed_run_goes_on_for_further_epochs(tmp_path: Path) -> None:
    train(board(), run_dir=tmp_path / "whole", epochs=5)
    train(board(), run_dir=tmp_path / "a", epochs=3)
    resume(tmp_path / "a", epochs=5)
    assert_same(curves(tmp_path / "a"), curves(tmp_path / "whole"))


def test_plugin_that_joins_at_a_resume_begins_there(tmp_path: Path, uninterrupted: Curves) -> None:
    train(stop_at(16), run_dir=tmp_path / "a")
    resume(tmp_path / "a")
    later = {tag: [point for point in points if point[0] > 16] for tag, points in uninterrupted.items()}
    assert_same(curves(tmp_path / "a"), later)


def test_run_that_goes_on_in_another_folder_leaves_the_first_as_it_was(tmp_path: Path, uninterrupted: Curves) -> None:
    train(board(), run_dir=tmp_path / "a")
    train(board(), run_dir=tmp_path / "b", resume=tmp_path / "a", epochs=4)
    assert_same(curves(tmp_path / "a"), uninterrupted)
    assert [step for step, _ in curves(tmp_path / "b")["loss/step"]] == list(range(37, 49))


def test_event_files_of_others_are_left_alone(tmp_path: Path) -> None:
    kill_at(21, tmp_path / "a")
    other = tmp_path / "a" / "events.out.tfevents.0000000001.host.1.0"
    other.write_bytes(b"not ours")
    resume(tmp_path / "a")
    assert other.read_bytes() == b"not ours"


def test_resumed_script_without_a_run_folder_finds_its_own(
    tmp_path: Path, uninterrupted: Curves, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ask = AtBatch(16, lambda context: context.save_checkpoint("sixteen.pth"))
    train(board(), ask, stop_at(20))
    train(board(), resume="sixteen.pth")
    (folder,) = (tmp_path / "runs").iterdir()
    assert_same(curves(folder), uninterrupted)


def test_graph_and_histograms_are_not_repeated_by_a_resume(tmp_path: Path) -> None:
    settings = {"graph": True, "histograms_every": "8 steps"}
    ask = AtBatch(16, lambda context: context.save_checkpoint("sixteen.pth"))
    train(board(**settings), ask, stop_at(20), run_dir=tmp_path / "a")
    train(board(**settings), run_dir=tmp_path / "a", resume=tmp_path / "a" / "sixteen.pth")
    found = load(tmp_path / "a")
    assert [event.step for event in found.Histograms("weights/weight")] == [8, 16, 24, 32]
    graphs = [
        path for path in (tmp_path / "a").glob("*tfevents*") if b"graph_def" in path.read_bytes() or _has_graph(path)
    ]
    assert len(graphs) == 1


def _has_graph(path: Path) -> bool:
    return any(event.graph_def for event in EventFileLoader(str(path)).Load())


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "python"])
def test_server_that_is_open_all_the_time_shows_the_curves_of_an_uninterrupted_run(
    tmp_path: Path, uninterrupted: Curves, *, fast: bool
) -> None:
    kill_at(21, tmp_path / "a")
    with serve(tmp_path, fast=fast) as server:
        server.wait_for_point("a", "loss/step", 20)
        resume(tmp_path / "a")
        server.wait_for_point("a", "loss/step", 36)
        assert_same(server_curves(server, "a"), uninterrupted)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "python"])
def test_server_that_is_opened_later_shows_the_curves_of_an_uninterrupted_run(
    tmp_path: Path, uninterrupted: Curves, *, fast: bool
) -> None:
    kill_at(21, tmp_path / "a")
    resume(tmp_path / "a")
    with serve(tmp_path, fast=fast) as server:
        server.wait_for_point("a", "loss/step", 36)
        assert_same(server_curves(server, "a"), uninterrupted)


def server_curves(server: Server, run: str) -> Curves:
    return {tag: server.curve(run, tag) for tag in server.scalar_tags()[run]}


def test_sessions_of_one_second_are_read_in_their_order(tmp_path: Path) -> None:
    names = []
    for _ in range(12):
        file = EventFile(tmp_path, 0)
        file.close()
        names.append(file.path.name)
    assert names == sorted(set(names))


def test_session_behind_one_of_a_machine_whose_clock_is_ahead_is_read_after_it(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.9999999998.elsewhere.bz").touch()
    file = EventFile(tmp_path, 0)
    file.close()
    assert file.path.name.startswith("events.out.tfevents.9999999999.")


FULL_DISK = """
import resource, sys
from pathlib import Path
from tensorboard_runs import curves
from bz_plugin_tensorboard.events import EventFile

folder = Path(sys.argv[1])
file = EventFile(folder, 0)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
size = file.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
for step in range(20):
    file.add_point("loss", step, step)
try:
    file.flush()
except OSError:
    print(file.path.stat().st_size == size)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
file.add_point("loss", 20, 20)
file.close()
print([step for step, _ in curves(folder)["loss"]] == list(range(21)))
"""


def test_full_disk_leaves_whole_records_and_loses_none_once_there_is_room(tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert finished.stdout.split() == ["True", "True"]
