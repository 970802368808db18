from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typer.testing import Result

GROUP = "bz.commands"
MAIL = """
import typer
app = typer.Typer()

@app.command()
def send(text: str):
    "Send a mail now."
    print("sent", text)

@app.command()
def crash():
    raise ValueError("no mail today")

@app.command()
def count():
    return 5

@app.command()
def stop(code: int):
    raise typer.Exit(code)

@app.command()
def ask():
    typer.confirm("Send?", abort=True)
"""


def test_help_lists_a_command_from_metadata_alone(bz: Callable[..., Result], install: Callable[..., None]) -> None:
    install("bz-plugin-postbox", {"postbox": "mail_commands:app"}, "raise Exception('imported')", group=GROUP)
    result = bz("--help")
    assert result.exit_code == 0
    assert "  postbox   from bz-plugin-postbox 0.1.0\n" in result.stdout


def test_command_of_a_package_runs(bz: Callable[..., Result], install: Callable[..., None]) -> None:
    install("bz-plugin-postbox", {"postbox": "mail_commands:app"}, MAIL, group=GROUP)
    assert bz("postbox", "send", "hello").stdout == "sent hello\n"
    assert "Send a mail now." in bz("postbox", "--help").stdout
    assert "╭" not in bz("postbox", "--help").stdout


def test_broken_command_is_one_sentence_and_breaks_nothing_else(
    bz: Callable[..., Result], install: Callable[..., None]
) -> None:
    install("bz-plugin-postbox", {"postbox": "mail_commands:app"}, "import nothing_like_this", group=GROUP)
    install("bz-plugin-exit", {"exit": "exit_commands:app"}, "raise SystemExit(0)", group=GROUP)
    install("bz-plugin-number", {"number": "number_commands:app"}, "app = 7", group=GROUP)
    broken = bz("postbox", "send")
    assert (broken.exit_code, broken.stdout) == (2, "")
    assert broken.stderr == (
        "The command 'postbox' of bz-plugin-postbox 0.1.0 cannot be loaded: "
        "ModuleNotFoundError: No module named 'nothing_like_this'.\n"
    )
    assert bz("exit").stderr == "The command 'exit' of bz-plugin-exit 0.1.0 cannot be loaded: SystemExit: 0.\n"
    assert bz("number").stderr == (
        "The command 'number' of bz-plugin-number 0.1.0 is not a typer app: number_commands:app is 7.\n"
    )
    assert bz("--help").exit_code == 0
    assert bz("plugins", "list").exit_code == 0


def test_crash_in_a_command_names_the_package_and_the_traceback(
    bz: Callable[..., Result], install: Callable[..., None]
) -> None:
    install("bz-plugin-postbox", {"postbox": "mail_commands:app"}, MAIL, group=GROUP)
    result = bz("postbox", "crash")
    assert result.exit_code == 1
    sentence = "bz-plugin-postbox 0.1.0 has a fault: ValueError: no mail today. The traceback is in "
    assert result.stderr.startswith(sentence)
    assert "raise ValueError" in Path(result.stderr.removeprefix(sentence).strip()).read_text()


def test_commands_in_conflict_are_named(bz: Callable[..., Result], install: Callable[..., None]) -> None:
    install("a-mail", {"postbox": "a_commands:app"}, MAIL, group=GROUP)
    install("b-mail", {"postbox": "b_commands:app"}, MAIL, group=GROUP, version="2.0")
    assert "postbox   in conflict: from a-mail 0.1.0 and b-mail 2.0" in bz("--help").stdout
    result = bz("postbox", "send", "x")
    assert result.exit_code == 2
    assert result.stderr == (
        "The command 'postbox' is in a-mail 0.1.0 and b-mail 2.0; uninstall the one you do not want.\n"
    )


def test_command_with_the_name_of_one_of_bz_is_named_and_not_offered(
    bz: Callable[..., Result], install: Callable[..., None]
) -> None:
    install("greedy", {"plugins": "greedy_commands:app"}, MAIL, group=GROUP)
    words = " ".join(bz("--help").stdout.split())
    assert "The command 'plugins' of greedy 0.1.0 is not offered: bz has its own." in words
    assert "console_out" in bz("plugins", "list").stdout


def test_unknown_command_names_the_close_match_also_of_a_package(
    bz: Callable[..., Result], install: Callable[..., None]
) -> None:
    install("bz-plugin-postbox", {"postbox": "mail_commands:app"}, MAIL, group=GROUP)
    result = bz("postbxo")
    assert (result.exit_code, result.stderr) == (
        2,
        "There is no command 'postbxo'. Did you mean 'postbox'? See: bz --help\n",
    )


def test_exit_code_of_a_command_of_a_package(bz: Callable[..., Result], install: Callable[..., None]) -> None:
    install("bz-plugin-postbox", {"postbox": "mail_commands:app"}, MAIL, group=GROUP)
    assert bz("postbox", "count").exit_code == 0
    assert bz("postbox", "stop", "7").exit_code == 7
    aborted = bz("postbox", "ask")
    assert (aborted.exit_code, aborted.stderr.strip()) == (1, "Aborted.")
