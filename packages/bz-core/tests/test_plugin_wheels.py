"""Discovery and loading against wheels that are really built and installed, broken ones included."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import pytest

from bz import ConfigError
from bz.plugins.discovery import DiscoveredPlugin, discover_plugins
from bz.plugins.loading import load_plugins
from bz.plugins.selection import PluginRequest, choose_plugins


class Project(NamedTuple):
    """A plugin package: what its metadata says and what its only module holds."""

    entry_point: str
    module: str
    requires: str = "bz-core>=0.1,<0.2"
    keywords: str = ""


GOOD = """
from bz.plugins import Plugin

class Recorder(Plugin):
    def __init__(self, path="x.txt", limit=3):
        self.path, self.limit = path, limit

    def end_epoch(self, context):
        pass
"""
PROJECTS = {
    "good-one": Project("recorder = good_one:Recorder", GOOD),
    "shy-one": Project("shy = shy_one:Recorder", GOOD, keywords="bz-opt-in"),
    "import-error": Project("import_error = import_error:Plugin", "raise RuntimeError('not today')"),
    "exits": Project("exits = exits:Plugin", "raise SystemExit(3)"),
    "missing-dependency": Project("needy = missing_dependency:Plugin", "import nowhere_to_be_found"),
    "missing-attribute": Project("hollow = missing_attribute:Plugin", ""),
    "wrong-type": Project("wrong = wrong_type:plugin", "plugin = 3"),
    "first-twin": Project("twin = first_twin:Recorder", GOOD),
    "second-twin": Project("twin = second_twin:Recorder", GOOD),
    "from-the-future": Project("future = from_the_future:Recorder", GOOD, requires="bz-core>=9"),
    "needs-settings": Project(
        "strict = needs_settings:Strict", "class Strict:\n    def __init__(self, host, port): ..."
    ),
}
PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "1.2.3"
keywords = [{keywords!r}]
dependencies = ["{requires}"]

[project.entry-points."bz.plugins"]
{entry_name} = "{target}"
"""


def write_project(folder: Path, name: str, project: Project) -> None:
    entry_name, _, target = project.entry_point.partition(" = ")
    folder.mkdir()
    (folder / f"{name.replace('-', '_')}.py").write_text(dedent(project.module))
    (folder / "pyproject.toml").write_text(
        PYPROJECT.format(
            name=name, keywords=project.keywords, requires=project.requires, entry_name=entry_name, target=target
        )
    )


@pytest.fixture(scope="module")
def site_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build every project into a wheel and install the wheels into one folder."""
    root, site = tmp_path_factory.mktemp("projects"), tmp_path_factory.mktemp("site")
    for name, project in PROJECTS.items():
        write_project(root / name, name, project)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site)]
    subprocess.run([*pip, *install, *(str(root / name) for name in PROJECTS)], check=True)
    return site


@pytest.fixture
def installed(site_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[DiscoveredPlugin]]:
    """What is discovered of those wheels."""
    monkeypatch.syspath_prepend(site_dir)
    yield [plugin for plugin in discover_plugins() if plugin.package in PROJECTS]
    for name in PROJECTS:
        sys.modules.pop(name.replace("-", "_"), None)


def by_name(plugins: list[DiscoveredPlugin], *names: str) -> list[DiscoveredPlugin]:
    return [plugin for plugin in plugins if plugin.name in names]


def choose(plugins: list[DiscoveredPlugin], settings: dict[str, Any] | None = None, **request: Any) -> dict[str, str]:
    """Return package to state."""
    choices = choose_plugins(plugins, settings or {}, PluginRequest(**request))
    return {choice.package or choice.name: choice.state for choice in choices}


def test_wheels_are_discovered_from_their_metadata_alone(installed: list[DiscoveredPlugin]) -> None:
    assert len(installed) == len(PROJECTS)
    assert by_name(installed, "recorder") == [
        DiscoveredPlugin("recorder", "good-one", "1.2.3", "good_one:Recorder", requires_core="<0.2,>=0.1")
    ]
    assert by_name(installed, "shy")[0].opt_in
    assert not {name.replace("-", "_") for name in PROJECTS} & set(sys.modules)


def test_good_plugin_is_built_from_its_settings(installed: list[DiscoveredPlugin]) -> None:
    settings = {"recorder": {"config": {"path": "y.txt"}}}
    loaded = load_plugins(choose_plugins(by_name(installed, "recorder"), settings, PluginRequest()))
    [(name, plugin)] = loaded.plugins
    assert (name, plugin.path, plugin.limit) == ("recorder", "y.txt", 3)  # type: ignore[attr-defined]


def test_opt_in_plugin_runs_only_when_it_is_named(installed: list[DiscoveredPlugin]) -> None:
    shy = by_name(installed, "shy")
    assert choose(shy) == {"shy-one": "off"}
    assert choose(shy, {"shy": {}}) == {"shy-one": "on"}
    assert choose(shy, only=("shy",)) == {"shy-one": "on"}


BROKEN = {
    "import_error": "Plugin 'import_error' of import-error cannot be imported: RuntimeError: not today",
    "exits": "Plugin 'exits' of exits cannot be imported: SystemExit: 3",
    "needy": (
        "Plugin 'needy' of missing-dependency cannot be imported: "
        "ModuleNotFoundError: No module named 'nowhere_to_be_found'"
    ),
    "hollow": (
        "Plugin 'hollow' of missing-attribute cannot be imported: "
        "AttributeError: module 'missing_attribute' has no attribute 'Plugin'"
    ),
    "wrong": "Plugin 'wrong' is a int and implements no hook; register an instance of a bz.plugins.Plugin.",
    "future": "Plugin 'future' of from-the-future cannot run: needs bz-core >=9, this is 0.1.0.",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_plugin_that_nobody_named_is_left_out_with_a_notice(
    name: str, installed: list[DiscoveredPlugin]
) -> None:
    loaded = load_plugins(choose_plugins(by_name(installed, name, "recorder"), {}, PluginRequest()))
    assert [name for name, _ in loaded.plugins] == ["recorder"]
    assert loaded.notices == (f"{BROKEN[name].rstrip('.')}. It was left out.",)


def test_broken_plugins_that_the_user_named_are_refused_together(installed: list[DiscoveredPlugin]) -> None:
    choices = choose_plugins(by_name(installed, *BROKEN), {name: {} for name in BROKEN}, PluginRequest())
    with pytest.raises(ConfigError) as caught:
        load_plugins(choices)
    assert caught.value.faults == tuple(BROKEN.values())


def test_plugin_with_required_settings_stays_off_until_they_are_there(installed: list[DiscoveredPlugin]) -> None:
    plugins = by_name(installed, "strict")
    loaded = load_plugins(choose_plugins(plugins, {}, PluginRequest()))
    assert loaded.notices == ("Plugin 'strict' is off: it needs the settings host, port.",)
    with pytest.raises(ConfigError) as caught:
        load_plugins(choose_plugins(plugins, {"strict": {"config": {"host": "h"}}}, PluginRequest()))
    assert caught.value.faults == ("`plugins.strict.config.port` is required.",)


def test_two_packages_with_one_name_collide_until_one_is_chosen(installed: list[DiscoveredPlugin]) -> None:
    twins = by_name(installed, "twin")
    assert choose(twins) == {"first-twin": "collision", "second-twin": "collision"}
    assert choose(twins, {"twin": {}}) == {"first-twin": "collision", "second-twin": "collision"}
    assert choose(twins, {"second-twin": {}}) == {"second-twin": "on", "first-twin": "off"}
    assert choose(twins, without=("first-twin",)) == {"first-twin": "off", "second-twin": "on"}
    assert choose(twins, {"first-twin": {"enabled": False}}) == {"first-twin": "off", "second-twin": "on"}


def test_collision_refuses_the_run_and_names_both_packages(installed: list[DiscoveredPlugin]) -> None:
    choices = choose_plugins(by_name(installed, "twin"), {}, PluginRequest())
    with pytest.raises(
        ConfigError, match="several packages provide a plugin 'twin': first-twin, second-twin; name one"
    ):
        load_plugins(choices)
