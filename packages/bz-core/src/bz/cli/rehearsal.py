"""A run of the user's project in a process of its own, which may be killed on the way.

`python -m bz.cli.rehearsal` is that process: it reads what to do as JSON from stdin and trains as `bz train` does.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bz.cli.trace import KILL, Step, TraceWriter, read_trace
from bz.errors import TrainingError

if TYPE_CHECKING:
    from bz.training.checkpoint import FoundCheckpoint

LINES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """A run to be rehearsed.

    Attributes:
        script: The script.
        config: The settings file, or None to look for one.
        overrides: Settings as in `training.epochs=3`.
        plugins: Installed plugins that run.
        folder: Where everything is written.
        name: Name of the run.
        stop_after: The step after which it ends.
    """

    script: str
    config: str | None
    overrides: tuple[str, ...]
    plugins: tuple[str, ...]
    folder: str
    name: str
    stop_after: int

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return Path(self.folder, "runs", self.name)

    @property
    def steps(self) -> list[Step]:
        """The steps that were made so far, also those that were made again."""
        return read_trace(self._trace)

    @property
    def _trace(self) -> Path:
        return Path(self.folder, f"{self.name}.trace")

    def record(self) -> dict[str, Any]:
        """Return `run.json`."""
        from bz.records import read_record

        return read_record(self.run_dir)

    def final_state(self) -> "FoundCheckpoint":
        """Return the newest checkpoint."""
        from bz.training.checkpoint import find_checkpoint

        return find_checkpoint(self.run_dir)

    def run(self, *, attempt: int = 0, kill_after: int | None = None) -> None:
        """Train in a process of its own and wait for it.

        Args:
            attempt: How often the run was killed before; after the first time it is resumed.
            kill_after: The step after which the process is killed.

        Raises:
            TrainingError: It ended otherwise than it should.
        """
        request = json.dumps({"rehearsal": asdict(self), "attempt": attempt, "kill_after": kill_after})
        code, text = _run_process([sys.executable, "-m", "bz.cli.rehearsal"], request)
        expected = (-KILL, KILL) if kill_after is not None else (0,)
        if code not in expected:
            lines = "\n".join(text.strip().splitlines()[-LINES_SHOWN:])
            raise TrainingError(f"The rehearsal {self.name!r} ended with exit code {code}:\n{lines}")

    def train(self, *, attempt: int, kill_after: int | None) -> int:
        """Train in this process and return the exit code."""
        from bz.cli import session
        from bz.cli.preparation import TrainRequest
        from bz.plugins.selection import PluginRequest

        request = TrainRequest(
            script=Path(self.script),
            config=Path(self.config) if self.config is not None else None,
            overrides=self.overrides,
            short_options=(),
            name=None if attempt else self.name,
            runs_dir=self.run_dir.parent,
            plugins=PluginRequest(only=self.plugins, none=not self.plugins),
            resume=self.name if attempt else None,
            watchers=(TraceWriter(self._trace, attempt, kill_after, self.stop_after),),
        )
        return session.train(request).exit_code


def _run_process(command: Sequence[str], request: str) -> tuple[int, str]:
    """Run a process in a group of its own; whatever it leaves behind, such as loader workers, is ended."""
    process = subprocess.Popen(  # noqa: S603 - runs this very module
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        text, _ = process.communicate(request)
    finally:
        _end_group(process)
    return process.returncode, text


def _end_group(process: "subprocess.Popen[str]") -> None:
    if not hasattr(os, "killpg"):  # Windows
        process.kill()
        return
    try:
        os.killpg(process.pid, KILL)
    except (ProcessLookupError, PermissionError):  # all of it is gone; macOS says so by the second
        return
    process.wait()


def _main() -> None:
    from bz.cli.faults import report

    request = json.load(sys.stdin)
    written: dict[str, Any] = request.pop("rehearsal")
    written |= {key: tuple(written[key]) for key in ("overrides", "plugins")}
    rehearsal = Rehearsal(**written)
    try:
        code = rehearsal.train(**request)
    except Exception as error:  # noqa: BLE001 - a sentence for the process that waits
        code = report(error)
    sys.exit(code)


if __name__ == "__main__":
    _main()
