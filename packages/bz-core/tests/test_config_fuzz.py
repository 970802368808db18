"""Whatever the settings are, there is a `Config` or a list of sentences, never another exception."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bz.config import Config, load_config, set_plugin_enabled
from bz.errors import ConfigError

VALID: dict[str, Any] = {
    "$schema": "bz.schema.json",
    "training": {"epochs": 3, "device": "cpu", "precision": "bf16", "compile": False, "seed": 1},
    "hyperparameters": {"lr": 0.1, "name": "${NAME}", "layers": [1, 2]},
    "metrics": {"accuracy": {"task": "multiclass"}},
    "plugins": {"console_out": {"enabled": True}, "email": {"config": {"password": "${PW}"}}},
    "strict_plugins": False,
}
ENVIRON = {"NAME": "x", "PW": "canary-secret", "BROKEN": "\udcff"}

words = st.sampled_from([*VALID, *VALID["training"], "enabled", "config", "${NAME}", "${", "$${", "${BROKEN}", "\n"])
texts = st.text(st.characters(codec=None), max_size=8) | words
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("settings"))
        yield


def check(content: bytes, overrides: Sequence[str] = (), name: str = "bz.json") -> None:
    path = Path(name)
    path.write_bytes(content)
    outcome = load(path, overrides)
    if isinstance(outcome, Config):
        assert "canary" not in json.dumps(outcome.record(), allow_nan=False)
        return
    assert outcome.faults
    for fault in outcome.faults:
        assert len(fault.splitlines()) == 1
        assert fault.endswith((".", "?"))
        assert "canary" not in fault
        assert "pydantic" not in fault
        fault.encode()


def load(path: Path, overrides: Sequence[str]) -> Config | ConfigError:
    try:
        return load_config(path, overrides, ENVIRON)
    except ConfigError as error:
        return error


def replace_somewhere(data: st.DataObject, tree: Any) -> Any:
    """Return a copy of `tree` with one value replaced, one key renamed or one key more."""
    tree = copy.deepcopy(tree)
    node = tree
    while isinstance(node, dict) and node:
        key = data.draw(st.sampled_from(sorted(node)))
        if isinstance(node[key], dict) and data.draw(st.booleans()):
            node = node[key]
            continue
        match data.draw(st.sampled_from(["value", "rename", "add"])):
            case "value":
                node[key] = data.draw(values)
            case "rename":
                node[data.draw(texts)] = node.pop(key)
            case _:
                node[data.draw(texts)] = data.draw(values)
        break
    return tree


@given(values)
def test_any_json_value_gives_settings_or_sentences(value: Any) -> None:
    check(json.dumps(value).encode())


@settings(max_examples=300)
@given(st.data())
def test_mutated_settings_give_settings_or_sentences(data: st.DataObject) -> None:
    tree = replace_somewhere(data, replace_somewhere(data, VALID))
    check(json.dumps(tree).encode())


@given(st.binary(max_size=200), st.sampled_from(["bz.json", "bz.toml", "pyproject.toml"]))
def test_any_bytes_give_settings_or_sentences(content: bytes, name: str) -> None:
    check(content, name=name)


@settings(max_examples=300)
@given(st.data())
def test_damaged_text_gives_settings_or_sentences(data: st.DataObject) -> None:
    text = json.dumps(VALID, indent=1)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 4, len(text))))
    check((text[:start] + data.draw(st.text(max_size=3).filter(str.isprintable)) + text[end:]).encode())


@settings(max_examples=300)
@given(st.lists(texts | st.builds("{}.{}={}".format, words, texts, texts | values.map(json.dumps)), max_size=3))
def test_any_overrides_give_settings_or_sentences(overrides: list[str]) -> None:
    check(json.dumps(VALID).encode(), overrides)


@given(st.data(), st.sampled_from([None, 1, "\t"]))
def test_editing_any_settings_changes_nothing_else(data: st.DataObject, indent: int | str | None) -> None:
    tree = replace_somewhere(data, VALID)
    path = Path("edit.json")
    path.write_text(json.dumps(tree, indent=indent))
    try:
        set_plugin_enabled(path, "email", False)
    except ConfigError:
        assert path.read_text() == json.dumps(tree, indent=indent)
        return
    tree.setdefault("plugins", {}).setdefault("email", {})["enabled"] = False
    assert json.loads(path.read_text()) == tree
