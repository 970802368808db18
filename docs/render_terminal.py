"""Runs a command in a terminal and makes a picture of what is on the screen.

    python docs/render_terminal.py docs/images/demo.png -- bz train examples/digits/train.py

Needs pexpect, pyte, rich and chromium. With `--after 8` the picture shows the screen after eight
seconds, bars and all; without it, the screen at the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]  # it has no type information
import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import MONOKAI
from rich.text import Text

LINES = 400
FAINT = 2


class Screen(pyte.Screen):
    """A screen that knows faint text, kept as `blink`, which nobody uses."""

    def select_graphic_rendition(self, *attrs: int, **options: Any) -> None:
        """Set colours and attributes."""
        super().select_graphic_rendition(*attrs, **options)
        if FAINT in attrs:
            self.cursor.attrs = self.cursor.attrs._replace(blink=True)


def record(command: list[str], columns: int, after_seconds: float) -> Screen:
    """Run the command and return its screen, at the end or after the given time."""
    screen = Screen(columns, LINES)
    stream = pyte.ByteStream(screen)
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns)}
    child = pexpect.spawn(command[0], command[1:], dimensions=(LINES, columns), env=environment, timeout=None)
    end = time.monotonic() + after_seconds
    while time.monotonic() < end:
        try:
            stream.feed(child.read_nonblocking(65536, timeout=0.1))
        except pexpect.TIMEOUT:
            continue
        except pexpect.EOF:
            break
    child.close(force=True)
    return screen


def to_text(screen: Screen) -> Text:
    """Return what is on the screen, with its styles, without the empty lines below."""
    lines = [Text.assemble(*(_styled(row[x]) for x in range(screen.columns))) for row in _rows(screen)]
    for line in lines:
        line.rstrip()
    while lines and not lines[-1].plain:
        lines.pop()
    return Text("\n").join(lines)


def _rows(screen: Screen) -> list[Any]:
    return [screen.buffer[y] for y in range(screen.lines)]


def _styled(character: Any) -> tuple[str, Style]:
    color = {"default": None, "brown": "yellow"}.get(character.fg, character.fg)
    return character.data, Style(color=color, bold=character.bold, dim=character.blink)


def export(text: Text, columns: int, title: str, picture_path: Path) -> None:
    """Write the picture, and the same as SVG beside it."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=columns, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(text, no_wrap=True, overflow="ignore", end="\n\n")  # the lower edge cuts into the last line
    svg_path = picture_path.with_suffix(".svg")
    console.save_svg(str(svg_path), title=title, theme=MONOKAI)
    _photograph(svg_path, picture_path)


def _photograph(svg_path: Path, picture_path: Path) -> None:
    """Let chromium draw the SVG, in a window of its size."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("chromium is not installed")
    view_box = svg_path.read_text().partition('viewBox="')[2].partition('"')[0].split()
    width, height = (round(float(side)) for side in view_box[2:])
    with tempfile.TemporaryDirectory() as profile:
        page = Path(profile, "page.html")
        page.write_text(f'<body style="margin:0"><img src="{svg_path.resolve().as_uri()}" width="{width}"></body>')
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1.5",
            f"--user-data-dir={profile}", f"--window-size={width},{height}", f"--screenshot={picture_path}",
        ]  # fmt: skip
        subprocess.run([browser, *flags, page.as_uri()], check=True, capture_output=True)  # noqa: S603


def main() -> None:
    """Read the arguments, record, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="the PNG to write")
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--after", type=float, default=float("inf"), metavar="SECONDS")
    parser.add_argument("--title", help="title of the window; by default the command")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    screen = record(arguments.command, arguments.columns, arguments.after)
    title = arguments.title or " ".join(arguments.command)
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    export(to_text(screen), arguments.columns, title, arguments.picture)


if __name__ == "__main__":
    main()
