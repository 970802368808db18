"""What README.md shows works as it is printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    """Return the one code block of the README in a language that holds some text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    [found] = [text for text in blocks if containing in text]
    return str(found)


def train(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run `bz train` in a folder and return its run.json."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BZ_")}
    process = subprocess.run(
        [sys.executable, "-m", "bz", "train", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    [run_folder] = (folder / "runs").iterdir()
    record: dict[str, Any] = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    return record


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the README's train.py and bz.json."""
    (tmp_path / "train.py").write_text(block("python", "def build"), encoding="utf-8")
    (tmp_path / "bz.json").write_text(block("json", '"training"'), encoding="utf-8")
    return tmp_path


def test_readme_project_trains(project: Path) -> None:
    assert train(project)["status"] == "completed"


def test_readme_override_changes_one_setting(project: Path) -> None:
    [override] = re.findall(r"`bz train (--set \S+)`", README)
    record = train(project, *override.split())
    assert record["settings"]["hyperparameters"] == {"lr": 0.1}


def test_readme_plugin_stops_the_run(project: Path) -> None:
    script = project / "train.py"
    listed = "plugins=[StopWhenGood(0.05)]"
    assert listed in README
    text = script.read_text(encoding="utf-8").replace("model=model,", f"model=model, {listed},")
    script.write_text(block("python", "class StopWhenGood") + text, encoding="utf-8")
    record = train(project)
    assert record["status"] == "stopped"
    assert record["reason"] == "the training loss is below 0.05"
