"""What a person sees: the plugin in a real run, in a process on a real pseudo-terminal, read by a terminal emulator."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]  # it has no type information
import pyte
import pytest

SCRIPT = Path(__file__).with_name("training_script.py")
LINES = 100
READS_OF_THE_CORE = 20  # in the scenario `many_batches`, about
BAR = re.compile(r"(epoch|step) +\d+(/\d+)?  [━#─-]")
COLOUR = re.compile(rb"\x1b\[(?:\d+;)*[349][0-7][;m]")


@dataclass
class Recording:
    """What one process wrote to its terminal.

    Attributes:
        raw: Every byte.
        lines: The screen at the end, without the empty lines below.
        frames: The screen as it was while the bars were on it.
        exit_code: Of the process.
    """

    raw: bytes
    lines: list[str]
    frames: list[list[str]]
    exit_code: int | None

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def record(
    scenario: str,
    settings: Mapping[str, Any] | None = None,
    *,
    every_batch: bool = False,
    columns: int = 80,
    environment: Mapping[str, str] | None = None,
    interrupt_at: str | None = None,
) -> Recording:
    """Run a scenario of the training script and read its terminal.

    Args:
        scenario: Name of the scenario.
        settings: Of the plugin.
        every_batch: Whether the bars are drawn after each batch, however long that takes.
        columns: Width of the terminal.
        environment: Variables to set.
        interrupt_at: Text at whose first appearance on the screen Ctrl-C is pressed.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    screen = pyte.Screen(columns, LINES)
    stream = pyte.ByteStream(screen)
    child = pexpect.spawn(
        sys.executable,
        [str(SCRIPT), scenario, json.dumps(settings or {}), *(["--every-batch"] if every_batch else [])],
        dimensions=(LINES, columns),
        env={**inherited, "TERM": "xterm-256color", **(environment or {})},
        timeout=60,
    )
    raw, frames = b"", []
    while True:
        try:
            chunk = child.read_nonblocking(65536, timeout=60)
        except pexpect.EOF:
            break
        raw += chunk
        stream.feed(chunk)
        if any(BAR.match(line) for line in screen.display):
            frames.append(shown(screen))
        if interrupt_at and any(interrupt_at in line for line in screen.display):
            child.sendintr()
            interrupt_at = None
    child.close()
    return Recording(raw, shown(screen), frames, child.exitstatus)


def shown(screen: pyte.Screen) -> list[str]:
    lines = [line.rstrip() for line in screen.display]
    while lines and not lines[-1]:
        lines.pop()
    return lines


@pytest.fixture(scope="module")
def completed() -> Recording:
    return record("completed")


@pytest.fixture(scope="module")
def slow() -> Recording:
    return record("slow", every_batch=True)


def test_completed_run_leaves_a_row_per_epoch_and_the_report(completed: Recording) -> None:
    text = completed.text
    assert completed.exit_code == 0
    assert "training Sequential on cpu: 3 epochs of 8 batches, 4 samples each" in text
    assert "epoch      loss  accuracy  val loss  val accuracy  samples/s        time" in text
    assert [line.split()[0] for line in completed.lines if re.match(r" +\d/3 ", line)] == ["1/3", "2/3", "3/3"]
    assert re.search(r"^completed 3 epochs in \d", text, re.MULTILINE)
    assert re.search(r"^best epoch \d: val loss \d\.\d{4}$", text, re.MULTILINE)
    assert "plugin       calls  seconds  share  failures" in re.sub(" {3,}", "  ", text).replace(
        "plugin  ", "plugin       "
    )
    assert re.search(r"^console_out +\d+ +\d\.\d{3} +\d+\.\d % +0$", text, re.MULTILINE)


def test_bars_show_epoch_loop_values_speed_and_time_left(slow: Recording) -> None:
    shapes = ["\n".join(frame[-3:]) for frame in slow.frames]
    training = [shape for shape in shapes if "training" in shape]
    assert any(
        re.search(
            r"^epoch +[123]/3  ━+─+ +\d+ %  \d\.\d+ s left\n"
            r"training +[1-8]/8  ━+─* +\d+ %  [\d,]+ samples/s\n"
            r"loss \d\.\d{4}  accuracy \d\.\d{4}$",
            shape,
        )
        for shape in training
    ), training[-1]
    assert any(re.search(r"^validation +[0-4]/4  ", shape, re.MULTILINE) for shape in shapes)


def test_device_is_read_no_more_often_than_the_bars_are_drawn() -> None:
    recording = record("many_batches", {"refresh_seconds": 0.1})
    drawn = recording.raw.count(b"epoch      ")
    reads = re.search(r"^device reads: (\d+)$", recording.text, re.MULTILINE)
    assert reads
    assert int(reads[1]) <= READS_OF_THE_CORE + drawn + 4
    assert drawn < 100


def test_bars_are_gone_at_the_end(slow: Recording) -> None:
    assert "━" not in slow.text


@pytest.mark.parametrize("columns", [20, 40, 250])
def test_no_row_is_broken_at_any_width(columns: int) -> None:
    recording = record("slow", every_batch=True, columns=columns)
    assert recording.exit_code == 0
    rows = [line.split()[0] for line in recording.lines if re.match(r" *\d/3( |$)", line)]
    assert rows == ["1/3", "2/3", "3/3"]
    for frame in recording.frames:
        bars = [line for line in frame if BAR.match(line)]
        assert len(bars) == 1, frame


def test_without_validation_there_are_no_validation_columns() -> None:
    text = record("no_validation").text
    assert "epoch      loss  accuracy  samples/s        time" in text
    assert re.search(r"^best epoch \d: loss ", text, re.MULTILINE)


def test_unknown_number_of_batches_is_learned_in_the_first_epoch() -> None:
    text = drawn(record("unknown_length", every_batch=True))
    assert re.search(r"training +[1-9]\d?/\?  ─+ +[\d,.]+ \w+/s\n", text)
    assert re.search(r"training +[1-9]\d?/40  ━", text)


def drawn(recording: Recording) -> str:
    """Return all that was ever drawn, one state of the bars after the other; no state of the screen is missed."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", recording.raw.decode())


def test_bar_goes_to_a_validation_inside_the_epoch_and_back_to_its_place() -> None:
    text = drawn(record("inner", every_batch=True))
    bars = re.findall(r"epoch +(\d)/3 .* (\d+) % .*\n(training|validation) +(\d+)/", text)
    phases = "".join(phase[0] for *_, phase, _ in bars)
    assert re.search(r"tv+t", phases)
    places = [(int(epoch), int(done)) for epoch, _, phase, done in bars if phase == "training"]
    assert places == sorted(places)
    shares = [int(share) for _, share, *_ in bars]
    assert shares == sorted(shares)


def test_speed_does_not_count_the_time_of_validations_inside_the_epoch() -> None:
    lines = record("inner_slow_validation", columns=120).lines
    *_, samples_per_second, seconds, _ = [line for line in lines if re.match(r" +1/1 ", line)][-1].split()
    training_seconds = 8 * 4 / float(samples_per_second)
    assert training_seconds < 0.6 * float(seconds)  # a third of the batches are those of training


def test_run_of_a_number_of_steps_shows_them_and_the_time_left() -> None:
    text = drawn(record("steps", every_batch=True))
    assert re.search(
        r"step +\d+/20  ━+─+ +\d+ %  \d\.\d+ s left\n"
        r"training +[1-8]/8  ━+─* +\d+ %  [\d,]+ samples/s\n"
        r"epoch [123]/3  loss \d\.\d{4}  accuracy \d\.\d{4}\n",
        text,
    )
    shares = [(int(step), int(share)) for step, share in re.findall(r"step +(\d+)/20 .* (\d+) %", text)]
    assert all(5 * step <= share <= 5 * step + 5 for step, share in shares)


def test_run_of_a_time_shows_its_part_that_is_over_and_the_time_left() -> None:
    recording = record("time", every_batch=True)
    shares = [int(share) for share in re.findall(r"epoch +\d  ━+─+ +(\d+) %  \d\.\d+ s left\n", drawn(recording))]
    assert len(set(shares)) > 2
    assert shares == sorted(shares)
    assert re.search(r"^ +1 +\d\.\d{4} ", recording.text, re.MULTILINE)


def test_columns_of_a_validation_stay_where_an_epoch_has_none() -> None:
    lines = record("sparse", columns=120).lines
    assert sum(line.strip().startswith("epoch ") for line in lines) == 2
    widths = {len(line) for line in lines if re.match(r" +[2345]/5 ", line)}
    assert len(widths) == 1


def test_no_color_has_no_colour_and_still_a_readable_bar(slow: Recording) -> None:
    recording = record("slow", every_batch=True, environment={"NO_COLOR": "1"})
    assert not COLOUR.search(recording.raw)
    assert any("━─" in line for frame in recording.frames for line in frame)
    assert COLOUR.search(slow.raw)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_terminal_without_unicode_gets_what_it_can_show(encoding: str) -> None:
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": encoding}
    recording = record("long_names", every_batch=True, columns=200, environment=environment)
    assert recording.exit_code == 0
    assert re.search(r"^console_out .* 0$", recording.text, re.MULTILINE)
    assert b"##" in recording.raw
    assert "a_very_long_metric_name" in recording.text


def test_what_others_print_appears_above_the_bars() -> None:
    recording = record("prints", every_batch=True)
    assert recording.exit_code == 0
    joined = recording.text.replace("\n", "")
    for line in (
        "printed with colour, [brackets] and :smile:",
        "half a line, the other half",
        "a long line " + "x" * 120,
        "to stderr",
        "logged by an old handler",
        "utf-8 is the encoding",
        "streams as before: True",
    ):
        assert joined.count(line) == 1, line
    assert b"\x1b[31mcolour" in recording.raw


def test_what_loader_workers_print_is_not_lost() -> None:
    recording = record("talkative_workers", every_batch=True)
    printed = [line for line in recording.lines if line.startswith("worker reads")]
    assert printed == [f"worker reads {index}" for index in (0, 8, 16, 24)] * 2
    assert "─" not in recording.text


def test_redirected_stderr_goes_to_its_file_and_not_to_the_terminal(tmp_path: Path) -> None:
    log_path = tmp_path / "errors.txt"
    command = f"{sys.executable} {SCRIPT} prints 2> {log_path}"
    child = pexpect.spawn("/bin/sh", ["-c", command], dimensions=(LINES, 80), timeout=60)
    output = child.read().decode()
    assert log_path.read_text().splitlines()[:2] == ["to stderr", "logged by an old handler"]
    assert "to stderr" not in output


def test_failed_run_says_why_in_one_line() -> None:
    recording = record("failed", columns=120)
    assert recording.exit_code == 1
    assert re.search(
        r"^failed at epoch 2 of 3 after .*: RuntimeError: size mismatch: got \?\[31m3, wanted 4$",
        recording.text,
        re.MULTILINE,
    )
    assert "streams as before: True" in recording.text
    assert "━" not in recording.text


def test_stopped_run_says_the_reason() -> None:
    text = record("stopped").text
    assert re.search(r"^stopped at epoch 2 of 3 after .*: no improvement for 1 epoch$", text, re.MULTILINE)


@pytest.mark.parametrize("scenario", ["interrupted", "interrupted_in_a_hook"])
def test_interrupted_run_gives_the_terminal_back(scenario: str) -> None:
    recording = record(scenario)
    assert re.search(r"^interrupted at epoch 2 of 3 after ", recording.text, re.MULTILINE)
    assert "streams as before: True" in recording.text
    assert "━" not in recording.text


def test_ctrl_c_gives_the_terminal_back() -> None:
    recording = record("long_run", interrupt_at="  2/300 ")
    assert re.search(r"^interrupted at epoch \d of 300 after ", recording.text, re.MULTILINE)
    assert "━" not in recording.text


@pytest.mark.parametrize("scenario", ["failed", "killed"])
def test_cursor_is_visible_afterwards(scenario: str) -> None:
    raw = record(scenario).raw
    assert raw.rfind(b"\x1b[?25h") >= raw.rfind(b"\x1b[?25l")


def test_plugin_that_failed_is_marked_in_the_report() -> None:
    text = record("broken_plugin").text
    assert re.search(r"raising .* 3, switched off$", text, re.MULTILINE)


def test_report_of_a_narrow_terminal_keeps_the_failures() -> None:
    assert re.search(r"^plugin +share +failures$", record("completed", columns=32).text, re.MULTILINE)


def test_nan_is_shown_and_is_never_the_best() -> None:
    text = record("nan").text
    assert re.search(r"^ +1/3 +\d\.\d{4} +nan ", text, re.MULTILINE)
    assert "best epoch" not in text


def test_run_of_no_epochs_is_reported() -> None:
    recording = record("no_epochs")
    assert "best epoch" not in recording.text


def test_bars_switched_off_leave_plain_lines() -> None:
    recording = record("completed", {"progress_bar": False}, columns=200)
    assert b"\x1b" not in recording.raw
    assert re.search(r"^epoch 3/3  loss \d", recording.text, re.MULTILINE)


@pytest.mark.parametrize("terminal", ["dumb", ""])
def test_terminal_that_cannot_redraw_gets_plain_lines(terminal: str) -> None:
    assert b"\x1b" not in record("completed", environment={"TERM": terminal}).raw
