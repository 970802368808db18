"""What the tests of the command line share: packages that are really installed, a real process, modules beside them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent

import pytest
from typer.testing import CliRunner, Result

from bz.cli.app import app

sys.path.insert(0, str(Path(__file__).parent))

Install = Callable[..., None]
RunBz = Callable[..., Result]
StartBz = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def working_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with none of bz's variables set."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("BZ_CONFIG", "BZ_PLUGINS", "BZ_DISABLE_PLUGINS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def site_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, for this process and for those it starts."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    yield folder
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def install(site_dir: Path) -> Install:
    """Install a package: its metadata as pip leaves it, and one module."""

    def install(
        package: str,
        entry_points: Mapping[str, str],
        module: str = "",
        *,
        group: str = "bz.plugins",
        version: str = "0.1.0",
        metadata: str = "",
    ) -> None:
        info = site_dir / f"{package.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n{metadata}")
        lines = [f"[{group}]", *(f"{name} = {target}" for name, target in entry_points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        for target in entry_points.values():
            (site_dir / f"{target.partition(':')[0]}.py").write_text(dedent(module))

    return install


@pytest.fixture
def bz() -> RunBz:
    """Run a command line in this process."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), prog_name="bz")

    return run


@pytest.fixture
def bz_process() -> StartBz:
    """Run a command line in a process of its own, as a user does."""

    def start(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bz", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, **variables},
        )

    return start
