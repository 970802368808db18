"""Every package has the same shape, and every tool's settings know every package."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
PLUGINS = [name for name in PACKAGES if name != "bz-core"]
CHANGE_TYPES = {"added", "changed", "fixed", "removed"}


def read_toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def project(package: str) -> dict[str, Any]:
    table: dict[str, Any] = read_toml(ROOT / "packages" / package / "pyproject.toml")["project"]
    return table


def import_name(package: str) -> str:
    return "bz" if package == "bz-core" else package.replace("-", "_")


def pinned_versions() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def requirements(package: str) -> list[Requirement]:
    table = project(package)
    extras = table.get("optional-dependencies", {}).values()
    return [Requirement(text) for text in [*table["dependencies"], *(text for extra in extras for text in extra)]]


def test_workspace_has_core_and_console() -> None:
    assert {"bz-core", "bz-plugin-console"} <= set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_package_has_the_files_of_every_package(package: str) -> None:
    folder = ROOT / "packages" / package
    source = folder / "src" / import_name(package)
    expected = [folder / "README.md", folder / "LICENSE", source / "__init__.py", source / "py.typed"]
    if package in PLUGINS:
        expected.append(source / "plugin.py")
    assert [str(path.relative_to(ROOT)) for path in expected if not path.is_file()] == []
    assert list((folder / "tests").glob("test_*.py")) != []


@pytest.mark.parametrize("package", PACKAGES)
def test_package_license_equals_that_of_the_workspace(package: str) -> None:
    assert (ROOT / "packages" / package / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("package", PACKAGES)
def test_package_metadata_agrees_with_the_workspace(package: str) -> None:
    table = project(package)
    assert table["name"] == package
    assert table["requires-python"] == ">=3.11"
    assert table["license"] == "MIT"
    assert re.fullmatch(r"0\.1\.\d+", table["version"])
    assert importlib.metadata.version(package) == table["version"]


@pytest.mark.parametrize("package", PACKAGES)
def test_package_dependencies_have_a_lower_bound_below_the_tested_version(package: str) -> None:
    versions = {**pinned_versions(), **{name: project(name)["version"] for name in PACKAGES}}
    for requirement in requirements(package):
        assert {">="} <= {bound.operator for bound in requirement.specifier}, requirement
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def brought(requirements: list[Requirement]) -> set[str]:
    """Return the distributions, installed here, that these need and those in turn; those of extras not among them."""
    found: set[str] = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(name)
            waiting += map(Requirement, importlib.metadata.distribution(name).requires or [])
    return found


def size_bytes(distribution: str) -> int:
    """Return the size of the installed files, compiled bytecode left out."""
    files = importlib.metadata.distribution(distribution).files or []
    paths = (Path(str(file.locate())) for file in files if file.suffix != ".pyc")
    return sum(path.stat().st_size for path in paths if path.is_file())


def test_core_brings_little_beyond_torch_and_no_numpy() -> None:
    needed = [Requirement(text) for text in project("bz-core")["dependencies"]]
    packages = brought(needed) - brought([Requirement("torch")]) | {"bz-core"}
    own_size = sum(path.stat().st_size for path in (ROOT / "packages/bz-core/src").rglob("*.py"))
    size = own_size + sum(map(size_bytes, packages - {"bz-core"}))
    assert len(packages) <= 16, sorted(packages)
    assert size <= 20e6
    assert "numpy" not in {requirement.name for requirement in requirements("bz-core")} | brought(needed)


@pytest.mark.parametrize("package", PLUGINS)
def test_plugin_depends_on_this_line_of_the_core(package: str) -> None:
    bounds = [requirement.specifier for requirement in requirements(package) if requirement.name == "bz-core"]
    assert bounds == [SpecifierSet(">=0.1,<0.2")]


@pytest.mark.parametrize("package", PLUGINS)
def test_plugin_has_entry_points_into_its_own_package(package: str) -> None:
    groups = project(package)["entry-points"]
    plugins, commands = (list(groups.get(group, {}).values()) for group in ("bz.plugins", "bz.commands"))
    assert set(groups) <= {"bz.plugins", "bz.commands"}
    assert [target.partition(":")[0] for target in plugins] in ([import_name(package)], [])
    assert [target.partition(":")[0] for target in commands] in ([f"{import_name(package)}.cli"], [])
    assert plugins + commands != []


@pytest.mark.parametrize("package", PLUGINS)
def test_plugin_readme_has_the_five_headings(package: str) -> None:
    text = (ROOT / "packages" / package / "README.md").read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"^## (.+)$", prose, flags=re.MULTILINE) == [
        "What it does",
        "Install",
        "Configure",
        "Hooks used",
        "Example output",
    ]


def test_constraints_name_every_tool_of_the_environment() -> None:
    groups = read_toml(ROOT / "pyproject.toml")["dependency-groups"]
    names = {canonicalize_name(Requirement(text).name) for text in groups["environment"]}
    assert names - set(pinned_versions()) == set()
    assert pinned_versions()["torch"] == "2.13.0"


def test_tool_settings_name_every_package() -> None:
    tools = read_toml(ROOT / "pyproject.toml")["tool"]
    names = {import_name(package) for package in PACKAGES}
    assert set(tools["mypy"]["mypy_path"]) == {"benchmarks", *(f"packages/{package}/src" for package in PACKAGES)}
    assert set(tools["coverage"]["run"]["source_pkgs"]) == names
    assert set(tools["importlinter"]["root_packages"]) == names
    siblings = tools["importlinter"]["contracts"][-1]["layers"][0]
    assert set(siblings.split(" | ")) == {import_name(package) for package in PLUGINS}


def test_documents_name_only_sessions_that_exist() -> None:
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    sessions = set(re.findall(r"^def (\w+)\(session: nox\.Session\) -> None:", noxfile, flags=re.MULTILINE))
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("examples/*/README.md")]
    named = {name for path in documents for name in re.findall(r"nox -s (\w+)", path.read_text(encoding="utf-8"))}
    assert {"demo", "tests"} <= named
    assert named - sessions == set()


def test_readme_links_every_package_and_nothing_that_is_missing() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"\]\(([^):#]+)\)", text))
    assert {f"packages/{package}" for package in PACKAGES} <= targets
    assert [target for target in sorted(targets) if not (ROOT / target).exists()] == []


def test_changelog_fragments_have_a_type_and_begin_with_a_package() -> None:
    for path in (ROOT / "changelog.d").glob("*.md"):
        assert path.name.startswith("+"), path.name
        assert path.suffixes[0].removeprefix(".") in CHANGE_TYPES, path.name
        assert path.read_text(encoding="utf-8").partition(":")[0] in {*PACKAGES, "workspace"}, path.name
