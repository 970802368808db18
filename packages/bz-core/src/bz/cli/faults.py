"""What the user reads when a command fails: one sentence for each thing that is wrong, and an exit code."""

from typing import Any, Final

from typer import Abort, TyperException

from bz.cli import output
from bz.errors import BzError, ConfigError, PluginError, ScriptError

FAILED: Final = 1
WRONG_USE: Final = 2


def report(error: Exception, culprit: str = "bz") -> int:
    """Print what went wrong on stderr and return the exit code.

    Args:
        error: What ended the command.
        culprit: Whose fault an error is that nobody raised on purpose: bz, or a package with its version.
    """
    if isinstance(error, TyperException):
        return _report_usage(error)
    if isinstance(error, BzError):
        return report_known(error)
    if isinstance(error, Abort):
        output.warn("Aborted.")
        return FAILED
    output.warn(f"{culprit} has a fault: {_in_words(error)}. {_save_traceback(error)}")
    return FAILED


def report_known(error: BzError) -> int:
    """Print an error that was raised on purpose and return the exit code."""
    for sentence in error.faults if isinstance(error, ConfigError) else (str(error),):
        output.warn(sentence)
    return WRONG_USE if isinstance(error, ConfigError | ScriptError | PluginError) else FAILED


def _report_usage(error: Any) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message().strip()
    stop = "" if message.endswith((".", "?", "!")) else "."
    hint = f" See: {context.command_path} --help" if context else ""
    output.warn(f"{message}{stop}{hint}")
    return int(error.exit_code)


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _save_traceback(error: Exception) -> str:
    """Write the traceback to a file and return the sentence that says where; the traceback itself if that fails."""
    import tempfile
    import traceback

    text = output.redacted("".join(traceback.format_exception(error)))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="bz-fault-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(text)
    except OSError:
        return f"The traceback:\n{text}"
    return f"The traceback is in {file.name}"
