"""What the documentation says is what the code does."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from typer.testing import CliRunner

import bz.hookspecs
from bz import Plugin, TrainingContext
from bz.cli.app import app
from bz.cli.extensions import discover_commands
from bz.config import load_config
from bz.hookspecs import LIFECYCLE_HOOKS
from bz.plugins.discovery import discover_plugins
from bz.plugins.selection import find_plugin
from bz.plugins.settings import check_settings, describe_settings
from bz.testing import tiny_spec, train

if TYPE_CHECKING:
    from pydantic import BaseModel

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
READMES = sorted(ROOT.glob("packages/*/README.md"))
EXAMPLES = [ROOT / "examples" / "README.md", *sorted(ROOT.glob("examples/*/README.md"))]
DOCUMENTS = [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md", *EXAMPLES, *READMES]
PLUGIN_READMES = [path for path in READMES if path.parent.name.startswith("bz-plugin-")]

# As the guide to custom plugins lists them.
GUIDE_HOOKS = [
    "start_training_session",
    "load_checkpoint",
    "start_epoch",
    "start_training_loop",
    "start_training_batch",
    "end_training_batch",
    "end_training_loop",
    "start_validation_loop",
    "start_validation_batch",
    "end_validation_batch",
    "end_validation_loop",
    "save_checkpoint",
    "end_epoch",
    "end_training_session",
]

# Not executed with the page: they are the files of the package that `package` builds.
TUTORIAL = ("pyproject.toml", "src/bz_plugin_patience/__init__.py", "tests/test_patience.py")

# Plugins that documents write, and that are not installed.
MADE_UP = {"patience", "stop_when_good"}


class Block(NamedTuple):
    """A fenced block of code: the file it is said to be, if any, its language, and its text."""

    file: str
    language: str
    text: str


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str | None = None) -> list[Block]:
    """Return the fenced blocks of a document, of one language or of all."""
    found = re.findall(r"(?:^`([^`\s]+)`:\n\n)?^```(\w*)\n(.*?)^```$", read(path), flags=re.DOTALL | re.MULTILINE)
    return [Block(*one) for one in found if language is None or one[1] == language]


def prose(path: Path) -> str:
    """Return a document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", read(path), flags=re.DOTALL | re.MULTILINE)


def table(text: str, first_column: str) -> list[list[str]]:
    """Return the rows of each table whose header begins with this column, one after another; no markup."""
    rows = []
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"| {first_column} |"):
            next(lines)
            for row in lines:
                if not row.startswith("|"):
                    break
                rows.append([cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", row)[1:-1]])
    return rows


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    """The script that writes the tables."""
    spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("document", DOCS, ids=identify)
def test_tables_are_those_of_the_code(document: Path, tables: ModuleType) -> None:
    assert read(document) == tables.fill(read(document)), "run: python docs/tables.py"


def test_each_table_stands_in_one_document(tables: ModuleType) -> None:
    names = [name for path in DOCS for name in re.findall(r"<!-- table: (\w+) -->", read(path))]
    assert sorted(names) == sorted(tables.TABLES)


def test_hook_table_has_the_hooks_in_firing_order() -> None:
    rows = table(read(ROOT / "docs" / "hooks.md"), "Hook")
    first_lines = [(inspect.getdoc(getattr(bz.hookspecs.LifecycleHooks, name)) or "") for name in LIFECYCLE_HOOKS]
    assert [row[:2] for row in rows[:14]] == [
        [name, text.partition("\n")[0]] for name, text in zip(LIFECYCLE_HOOKS, first_lines, strict=True)
    ]
    assert [row[0] for row in rows[14:28]] == list(LIFECYCLE_HOOKS)


def test_hooks_are_those_of_the_guide() -> None:
    assert sorted(LIFECYCLE_HOOKS) == sorted(GUIDE_HOOKS)


def test_picture_of_the_hooks_is_that_of_the_code() -> None:
    [picture] = blocks(ROOT / "docs" / "hooks.md", "text")
    [drawn] = re.findall(r"(?:^ {4}.*\n)+", bz.hookspecs.__doc__ or "", flags=re.MULTILINE)
    assert picture.text == dedent(drawn)


@pytest.mark.parametrize("document", DOCUMENTS, ids=identify)
def test_context_fields_in_documents_exist(document: Path) -> None:
    known = {*vars(TrainingContext), "extra", "hyperparameters"}
    assert set(re.findall(r"\bcontext\.([a-z_]+)\b(?!\.md)", read(document))) - known - {"md"} == set()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the tutorial, installed into the folder `site` beside its own files."""
    folder = tmp_path_factory.mktemp("tutorial")
    files = {block.file: block.text for block in blocks(ROOT / "docs" / "writing-plugins.md") if block.file}
    assert tuple(files) == TUTORIAL
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site"), str(folder)]
    subprocess.run(command, check=True)
    return folder


def call(package: Path, *arguments: str) -> str:
    """Run a module of Python with the package installed and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BZ_")}
    finished = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=package,
        env=environment | {"PYTHONPATH": str(package / "site")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_package_of_the_tutorial_is_found_and_has_no_faults(package: Path) -> None:
    listed = {row["name"]: row for row in json.loads(call(package, "bz", "plugins", "list", "--json"))}
    assert listed["patience"]["state"] == "on"
    [checked] = json.loads(call(package, "bz", "plugins", "check", "patience", "--json"))
    assert checked["error"] is None
    assert checked["problems"] == []


def test_package_of_the_tutorial_passes_its_own_tests(package: Path) -> None:
    assert "7 passed" in call(package, "pytest", "-p", "no:cacheprovider", "tests")


@pytest.mark.parametrize("document", [path for path in DOCS if blocks(path, "python")], ids=identify)
def test_python_of_documents_runs(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "document"}
    steps: list[dict[str, Any]] = []
    for block in blocks(document, "python"):
        if not block.file:
            exec(compile(block.text, document.name, "exec"), names)
            own: dict[str, Any] = {
                name: names.pop(name) for name in ("training_step", "manual_optimization") if name in names
            }
            steps += [own] if own else []
    kinds = [value for value in names.values() if isinstance(value, type) and value.__module__ == "document"]
    plugins = [kind() for kind in kinds if issubclass(kind, Plugin)]
    metrics = {kind.__name__: kind() for kind in kinds if not issubclass(kind, Plugin)}
    for step in steps:
        assert train(tiny_spec(**step), epochs=1).status == "completed"
    result = train(tiny_spec(metrics=metrics), *plugins, epochs=10, run_dir="run", strict_plugins=True)
    assert result.status == "completed"
    assert set(result.training_metrics) == set(metrics)
    assert bool(capsys.readouterr().out) == bool(plugins or document.name == "checkpoints.md")
    assert [path.name for path in (tmp_path / "run").glob("kept/*")] == ["epoch_10.pth"] * (len(plugins) > 0)


@pytest.mark.parametrize("document", READMES, ids=identify)
def test_python_of_packages_compiles(document: Path) -> None:
    programs = [compile(block.text, identify(document), "exec") for block in blocks(document, "python")]
    assert programs, "each package shows how it is used from Python"


def plugin_settings(text: str, tmp_path: Path) -> dict[str, Any]:
    """Load settings as bz does and return the `config` of each plugin."""
    file = tmp_path / "bz.json"
    file.write_text(text, encoding="utf-8")
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "value")
    return {name: section.config for name, section in load_config(file, environ=variables).plugins.items()}


def settings_blocks(document: Path) -> list[Block]:
    """Return the settings in JSON; a list is what a plugin wrote."""
    return [block for block in blocks(document, "json") if not block.text.startswith("[")]


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if settings_blocks(path)], ids=identify)
def test_settings_in_documents_are_accepted(document: Path, tmp_path: Path) -> None:
    installed = discover_plugins()
    for block in settings_blocks(document):
        for name, config in plugin_settings(block.text, tmp_path).items():
            found = find_plugin(name, installed)
            assert bool(found) == (name not in MADE_UP)
            for plugin in found:
                assert check_settings(plugin.name, plugin.load(), config).model_fields_set == config.keys()


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if blocks(path, "toml")], ids=identify)
def test_toml_in_documents_is_accepted(document: Path, tmp_path: Path) -> None:
    for block in blocks(document, "toml"):
        if settings := tomllib.loads(block.text).get("tool", {}).get("bz"):
            file = tmp_path / "pyproject.toml"
            file.write_text(block.text, encoding="utf-8")
            assert load_config(file, environ={}).model_fields_set == settings.keys()


def anchors(path: Path) -> set[str]:
    """Return the anchors that a forge makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=identify)
def test_links_lead_somewhere(document: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        target, _, anchor = link.partition("#")
        path = (document.parent / target) if target else document
        if "://" in link:
            continue
        if not path.exists() or (anchor and anchor not in anchors(path)):
            dead.append(link)
    assert dead == []


def test_index_links_every_document() -> None:
    links = set(re.findall(r"\]\(([\w-]+\.md)\)", read(ROOT / "docs" / "index.md")))
    assert links == {path.name for path in DOCS} - {"index.md"}


def commands() -> list[str]:
    """Return every call of bz in the documents, in a line of its own or inside a sentence."""
    found = set()
    for path in DOCUMENTS:
        found |= set(re.findall(r"^(?:    |\$ )?(bz [^\n]+)$", read(path), flags=re.MULTILINE))
        found |= {" ".join(command.split()) for command in re.findall(r"`(bz\s[^`]+)`", prose(path))}
    return sorted(command for command in found if "COMMAND" not in command)


@pytest.mark.parametrize("command", commands())
def test_commands_in_documents_are_accepted(command: str) -> None:
    arguments = shlex.split(re.sub(r"[\[\]]|\.\.\.", "", command))[1:]
    result = CliRunner().invoke(app, [*arguments, "--help"])
    assert result.exit_code == 0, result.output


def defaults(model: type[BaseModel]) -> dict[str, set[str]]:
    """Return the ways in which the default of each setting may be written."""
    found = {}
    for name, field in model.model_fields.items():
        value = field.get_default(call_default_factory=True)
        spellings = {"required"} if field.is_required() else {json.dumps(value, default=str), str(value)}
        found[field.alias or name] = spellings | ({"none"} if value is None and not field.is_required() else set())
    return found


def entry_points(document: Path, group: str) -> dict[str, str]:
    """Return the entry points of one group in the package that a README is about."""
    content = tomllib.loads(read(document.parent / "pyproject.toml"))
    found: dict[str, str] = content["project"]["entry-points"].get(group, {})
    return found


@pytest.mark.parametrize(
    "document", [path for path in PLUGIN_READMES if entry_points(path, "bz.plugins")], ids=identify
)
def test_settings_of_plugins_are_those_of_the_code(document: Path) -> None:
    [plugin] = [one for one in discover_plugins() if one.package == document.parent.name]
    expected = defaults(describe_settings(plugin.load()))
    rows = {row[0]: row[1] for row in table(read(document), "Setting")}
    assert list(rows) == list(expected)
    assert {name: written for name, written in rows.items() if written.strip("`") not in expected[name]} == {}


def options(command: Any) -> list[list[str]]:
    """Return option, default and help of a command, as its table has them."""
    rows = []
    for param in command.params:
        if param.param_type_name == "option":
            default = "none" if param.default is None else str(param.default).lower()
            rows.append([" ".join(filter(None, [param.opts[0], param.metavar])), default, param.help])
    return rows


@pytest.mark.parametrize(
    "document", [path for path in PLUGIN_READMES if not entry_points(path, "bz.plugins")], ids=identify
)
def test_options_of_packages_without_a_plugin_are_those_of_the_code(document: Path) -> None:
    [name] = entry_points(document, "bz.commands")
    [command] = discover_commands()[name]
    assert table(read(document), "Option") == options(command.load())


def test_keys_of_a_checkpoint_are_those_of_a_file(tmp_path: Path) -> None:
    train(tiny_spec(), run_dir=tmp_path, epochs=1)
    state = torch.load(tmp_path / "state" / "epoch_1_step_3.pth", weights_only=True)
    documented = [row[0] for row in table(read(ROOT / "docs" / "checkpoints.md"), "Key")]
    assert sorted(documented) == sorted([*state, *state["bz"]])


def test_exit_codes_of_signals_are_those_of_a_shell() -> None:
    rows = {row[0]: row[1] for row in table(read(ROOT / "docs" / "checkpoints.md"), "Ended by")}
    codes = {name: int(code) for name, code in rows.items() if name.startswith("SIG")}
    assert codes == {name: 128 + signal.Signals[name] for name in ("SIGINT", "SIGUSR1", "SIGTERM")}
