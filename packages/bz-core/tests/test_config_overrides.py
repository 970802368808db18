"""`--set KEY=VALUE`."""

import json
from pathlib import Path
from typing import Any

import pytest

from bz.config import load_config
from bz.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fault(*overrides: str, settings: Any = None) -> str:
    path = Path("bz.json")
    path.write_text(json.dumps(settings or {}))
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides, {})
    assert caught.value.faults == (str(caught.value),)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3", 3),
        ("0.01", 0.01),
        ("1e-3", 0.001),
        ("true", True),
        ("null", None),
        ("text", "text"),
        ("a=b", "a=b"),
        ("", ""),
        ('"3"', "3"),
        ("[1, 2]", [1, 2]),
        ('{"a": {"b": 1}}', {"a": {"b": 1}}),
        ("1.2.3", "1.2.3"),
        ("2026-11-23", "2026-11-23"),
    ],
)
def test_override_value_is_json_or_else_text(value: str, expected: Any) -> None:
    config = load_config(None, [f"hyperparameters.x={value}"], {})
    assert config.hyperparameters["x"] == expected
    assert type(config.hyperparameters["x"]) is type(expected)


def test_override_changes_one_key_and_keeps_the_others(folder: Path) -> None:
    path = folder / "bz.json"
    path.write_text('{"training": {"epochs": 1, "seed": 7}, "plugins": {"x": {"config": {"a": 1}}}}')
    config = load_config(path, ["training.epochs=2", "training.epochs=3", "plugins.x.enabled=false"], {})
    assert (config.training.epochs, config.training.seed) == (3, 7)
    assert config.plugins["x"].model_dump() == {"enabled": False, "config": {"a": 1}}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.epochs", "`--set`: \"training.epochs\" has no '='; write it as --set training.epochs=3."),
        ("=3", '`--set`: "" is no key; write it as --set training.epochs=3.'),
        ("training..epochs=3", '`--set`: "training..epochs" is no key; write it as --set training.epochs=3.'),
        (".=3", '`--set`: "." is no key; write it as --set training.epochs=3.'),
        ("training.epochs=0", "`--set training.epochs=0`: `training.epochs` must be at least 1, got 0."),
        (
            "trainig.epochs=3",
            (
                "`--set trainig.epochs=3`: unknown key `trainig`; accepted: hyperparameters, metrics, plugins, "
                "strict_plugins, training. Did you mean 'training'?"
            ),
        ),
        (
            "training.epochs.x=3",
            "`--set training.epochs.x=3`: `training.epochs` is 7 in the settings, which has no keys to set.",
        ),
        (
            "hyperparameters.x=[1",
            (
                "`--set hyperparameters.x=[1`: line 1, column 3: not JSON: expecting ',' delimiter, "
                "got the end of the file."
            ),
        ),
        (
            "hyperparameters.x=NaN",
            "`--set hyperparameters.x=NaN`: the value must be a finite number, got nan.",
        ),
        (
            "hyperparameters.x=.01",
            (
                "`--set hyperparameters.x=.01`: write the number as in JSON, such as 0.01, or as '\".01\"' "
                "if it is meant as text."
            ),
        ),
        (
            "hyperparameters.x=False",
            "`--set hyperparameters.x=False`: write false, or '\"False\"' if it is meant as text.",
        ),
    ],
)
def test_override_that_is_wrong_gets_one_sentence(override: str, expected: str) -> None:
    assert fault(override, settings={"training": {"epochs": 7}}) == expected


def test_fault_is_blamed_on_the_file_when_the_option_set_another_key() -> None:
    assert fault("training.seed=1", settings={"training": {"epochs": 0}}) == (
        "bz.json: `training.epochs` must be at least 1, got 0."
    )


def test_override_of_a_secret_is_not_repeated_in_the_fault() -> None:
    assert "hunter2" not in fault('plugins.email.password="hunter2"')
    assert "hunter2" not in fault('plugins.email.config.password="hunter2')
