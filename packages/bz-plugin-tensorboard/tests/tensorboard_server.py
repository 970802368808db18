"""A real TensorBoard on the loopback interface, for tests that ask what it shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

SECONDS_TO_START = 60


class Server:
    """Asks a running TensorBoard through its HTTP API."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, **query: str) -> Any:
        address = f"{self.address}/data/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, content: Mapping[str, Any]) -> Any:
        request = urllib.request.Request(f"{self.address}/data/{path}", data=json.dumps(content).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def runs(self) -> list[str]:
        return sorted(self.get("runs"))

    def scalar_tags(self) -> dict[str, list[str]]:
        return {run: sorted(tags) for run, tags in self.get("plugin/scalars/tags").items()}

    def curve(self, run: str, tag: str) -> list[tuple[int, float]]:
        return [(step, value) for _, step, value in self.get("plugin/scalars/scalars", run=run, tag=tag)]

    def wait_for_point(self, run: str, tag: str, step: int) -> None:
        """Wait until the curve has a point at the step: the server looks at the files once a second."""
        deadline = time.monotonic() + 120
        while step not in [one for one, _ in self.curve(run, tag)]:
            assert time.monotonic() < deadline, f"{tag} has no step {step}"
            time.sleep(0.1)


@contextmanager
def serve(logdir: Path, *, fast: bool) -> Iterator[Server]:
    """Run TensorBoard over the folder, with its fast data server or with its Python loader."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1", "--port", "0"]
    command += ["--reload_interval", "1", "--load_fast", "true" if fast else "false"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        lines: list[str] = []
        reader = Thread(target=lambda: lines.extend(iter(process.stderr.readline, "")))  # type: ignore[union-attr]
        reader.start()
        try:
            yield Server(_wait_until_ready(process, lines))
        finally:
            process.terminate()
            process.wait(20)
            reader.join()


def _wait_until_ready(process: subprocess.Popen[str], lines: list[str]) -> str:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"TensorBoard [\d.]+ at (http://127\.0\.0\.1:\d+)/", "".join(lines))
        if found and _has_loaded(found[1]):
            return found[1]
        time.sleep(0.1)
    raise AssertionError("".join(lines))


def _has_loaded(address: str) -> bool:
    with urllib.request.urlopen(f"{address}/data/runs", timeout=60) as answer:
        return bool(json.load(answer))
