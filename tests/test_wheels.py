"""Every package as a user gets it: built into a wheel and installed into an environment that holds nothing else.

torch is large, so the clean environments borrow it, and what it needs, from the environment of the tests; everything
else is installed by pip from what the wheel says it needs. Runs by `nox -s wheels`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.wheels

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
PLUGINS = [name for name in PACKAGES if name != "bz-core"]

SCRIPT_WITHOUT_NUMPY = """
import torch

model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loss_fn = torch.nn.CrossEntropyLoss()
dataset = torch.utils.data.TensorDataset(torch.randn(16, 4), torch.randint(2, (16,)))
training_loader = torch.utils.data.DataLoader(dataset, batch_size=4)
"""


class CleanEnvironment:
    """A virtual environment without any distribution of bz; pip works on it from outside."""

    def __init__(self, folder: Path, wheelhouse: Path, borrowed: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        self.scripts = folder / ("Scripts" if os.name == "nt" else "bin")
        self.wheelhouse = wheelhouse
        site_packages = self.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        Path(site_packages, "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")

    def run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        return completed([str(self.scripts / program), *arguments], cwd=cwd)

    def pip(self, command: str, *arguments: str) -> None:
        completed([sys.executable, "-m", "pip", "--python", str(self.scripts / "python"), command, *arguments])

    def install(self, package: str) -> None:
        [wheel] = self.wheelhouse.glob(f"{package.replace('-', '_')}-*.whl")
        constraints = ["--constraint", str(ROOT / "constraints.txt")]
        self.pip("install", "--find-links", str(self.wheelhouse), *constraints, str(wheel))
        self.pip("check")

    def plugins(self) -> dict[str, dict[str, Any]]:
        listed = json.loads(self.run("bz", "plugins", "list", "--json"))
        return {plugin["name"]: plugin for plugin in listed}


def completed(command: list[str], cwd: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BZ_", "PYTHONPATH"))}
    process = subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, f"{' '.join(command)}\n{process.stdout}\n{process.stderr}"
    return process.stdout


def project(package: str) -> dict[str, Any]:
    text = (ROOT / "packages" / package / "pyproject.toml").read_text(encoding="utf-8")
    table: dict[str, Any] = tomllib.loads(text)["project"]
    return table


def with_dependencies(name: str, known: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return the installed distribution and all that it needs here, by canonical name."""
    known |= {canonicalize_name(name)}
    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        is_needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if is_needed and canonicalize_name(requirement.name) not in known:
            known = with_dependencies(requirement.name, known)
    return known


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheelhouse")
    sources = [str(ROOT / "packages" / package) for package in PACKAGES]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    completed([sys.executable, "-m", "pip", "wheel", *options, *sources])
    return folder


@pytest.fixture(scope="module")
def borrowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of links to torch and what it needs, to be put on a path."""
    folder = tmp_path_factory.mktemp("borrowed")
    for name in with_dependencies("torch"):
        distribution = importlib.metadata.distribution(name)
        tops = {path.parts[0] for path in distribution.files or []} - {"..", "__pycache__"}
        for top in sorted(tops):
            (folder / top).symlink_to(str(distribution.locate_file(top)))
    return folder


@pytest.fixture
def clean(tmp_path: Path, wheelhouse: Path, borrowed: Path) -> CleanEnvironment:
    return CleanEnvironment(tmp_path / "clean", wheelhouse, borrowed)


@pytest.mark.parametrize("package", PACKAGES)
def test_wheel_holds_types_license_and_nothing_but_the_package(wheelhouse: Path, package: str) -> None:
    import_name = "bz" if package == "bz-core" else package.replace("-", "_")
    [wheel] = wheelhouse.glob(f"{package.replace('-', '_')}-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    metadata = f"{package.replace('-', '_')}-{project(package)['version']}.dist-info"
    assert {name.partition("/")[0] for name in names} == {import_name, metadata}
    assert {f"{import_name}/py.typed", f"{metadata}/licenses/LICENSE"} <= set(names)


def test_core_alone_lists_no_plugin_and_trains_without_numpy(clean: CleanEnvironment, tmp_path: Path) -> None:
    clean.install("bz-core")
    assert clean.run("bz", "--version").split()[-1] == project("bz-core")["version"]
    assert clean.plugins() == {}
    (tmp_path / "train.py").write_text(SCRIPT_WITHOUT_NUMPY, encoding="utf-8")
    clean.run("python", "-c", "import importlib.util; assert importlib.util.find_spec('numpy') is None")
    clean.run("bz", "train", cwd=tmp_path)
    [run_folder] = (tmp_path / "runs").iterdir()
    assert json.loads((run_folder / "run.json").read_text(encoding="utf-8"))["status"] == "completed"


@pytest.mark.parametrize("package", PLUGINS)
def test_plugin_is_listed_while_it_is_installed(clean: CleanEnvironment, package: str) -> None:
    table = project(package)
    clean.install("bz-core")
    assert clean.plugins() == {}

    clean.install(package)
    listed = clean.plugins()
    assert set(listed) == set(table["entry-points"].get("bz.plugins", {}))
    assert {(plugin["package"], plugin["version"]) for plugin in listed.values()} <= {(package, table["version"])}
    help_text = clean.run("bz", "--help")
    commands = set(table["entry-points"].get("bz.commands", {}))
    assert {name for name in commands if re.search(rf"{name} +from {package}", help_text)} == commands
    assert {plugin["state"] for plugin in listed.values()} <= {"on", "off"}

    clean.pip("uninstall", "--yes", package)
    assert clean.plugins() == {}
