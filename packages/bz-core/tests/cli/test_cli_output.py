from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import TYPE_CHECKING

from bz.cli import output

if TYPE_CHECKING:
    import pytest


def test_table_in_a_pipe_is_aligned_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    long = "a reason of many words " * 20
    output.print_table(("name", "why"), [("console_out", long), ("x", "short")])
    assert capsys.readouterr().out == f"NAME         WHY\nconsole_out  {' '.join(long.split())}\nx            short\n"


def test_json_has_null_for_numbers_that_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"loss": math.nan, "best": [math.inf, 0.5]})
    assert json.loads(capsys.readouterr().out) == {"loss": None, "best": [None, 0.5]}


def test_control_characters_are_spelled_out(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("name \x1b[31mred\x07 \x9b2J")
    assert capsys.readouterr().out == "name \\x1b[31mred\\x07 \\x9b2J\n"


def test_hidden_secrets_are_in_no_output(capsys: pytest.CaptureFixture[str]) -> None:
    output.hide(["hunter2hunter2"])
    try:
        output.say("password hunter2hunter2")
        output.warn("password hunter2hunter2")
        output.print_json({"password": "hunter2hunter2"})
        output.print_table(("a",), [("hunter2hunter2",)])
    finally:
        output.forget_secrets()
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err
    assert captured.out.count("**********") == 3


def test_text_that_the_stream_cannot_encode_is_escaped() -> None:
    script = "from bz.cli import output; output.say('loss \\u2193 0.1')"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, env={"PYTHONIOENCODING": "ascii"}
    )
    assert done.stdout == b"loss \\u2193 0.1\n"


def test_reader_that_went_away_is_no_fault() -> None:
    command = f"{sys.executable} -m bz config schema | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{\n0\n", "")


def test_full_disk_behind_stdout_is_one_sentence() -> None:
    command = f"{sys.executable} -m bz plugins list > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "The output could not be written: No space left on device.\n")
