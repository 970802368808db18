"""From file, options and environment to a `Config`, or to every fault at once."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bz.config import Config, load_config
from bz.config.models import TrainingOptions, TrainingSettings
from bz.errors import ConfigError

DESIGN_EXAMPLE = """
{
  "$schema": "bz.schema.json",
  "training": {"epochs": 10, "device": "auto", "precision": "fp32", "compile": false, "seed": 42,
               "checkpoint_interval": 1},
  "hyperparameters": {"lr": 0.001, "batch_size": 64, "model_name": "digits"},
  "metrics": {"accuracy": {"task": "multiclass", "num_classes": 10}},
  "plugins": {
    "console_out": {"enabled": true},
    "email_plugin": {"enabled": true, "config": {"smtp_server": "smtp.example.com", "password": "${SMTP_PASSWORD}"}}
  }
}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(settings: Any, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Config:
    path = Path("bz.json")
    path.write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return load_config(path, overrides, environ or {})


def faults(settings: Any, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(settings, overrides, environ)
    return caught.value.faults


def training_fault(name: str, value: Any) -> str:
    (fault,) = faults({"training": {name: value}})
    return fault


def test_load_without_a_file_gives_the_defaults() -> None:
    config = load_config(None, environ={})
    assert config == Config()
    assert config.training.model_dump() == {
        "epochs": None,
        "max_steps": None,
        "max_time": None,
        "limit_train_batches": None,
        "limit_validation_batches": None,
        "overfit_batches": None,
        "validation_interval": "1 epoch",
        "validate_first": False,
        "device": "auto",
        "precision": "fp32",
        "tf32": None,
        "compile": False,
        "accumulate_batches": 1,
        "clip_grad_norm": None,
        "clip_grad_value": None,
        "scheduler_interval": "1 epoch",
        "scheduler_monitor": None,
        "seed": None,
        "deterministic": False,
        "checkpoint_interval": "1 epoch",
        "async_checkpoint": False,
        "on_nonfinite": "stop",
    }


def test_load_a_full_file_gives_its_values() -> None:
    config = load(DESIGN_EXAMPLE, environ={"SMTP_PASSWORD": "hunter2"})
    assert config.training.epochs == 10
    assert config.training.seed == 42
    assert config.hyperparameters == {"lr": 0.001, "batch_size": 64, "model_name": "digits"}
    assert config.metrics == {"accuracy": {"task": "multiclass", "num_classes": 10}}
    assert list(config.plugins) == ["console_out", "email_plugin"]
    assert config.plugins["email_plugin"].config == {"smtp_server": "smtp.example.com", "password": "hunter2"}


def test_config_is_frozen() -> None:
    config = load({})
    with pytest.raises(ValidationError, match="frozen"):
        config.training.epochs = 3


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("epochs", 0, "must be at least 1, got 0."),
        ("epochs", -3, "must be at least 1, got -3."),
        ("epochs", 1_000_000_001, "must be at most 1000000000, got 1000000001."),
        ("epochs", True, "must be a whole number, got true."),
        ("epochs", "3", 'must be a whole number, got "3".'),
        ("epochs", 3.0, "must be a whole number, got 3.0."),
        ("epochs", 2.5, "must be a whole number, got 2.5."),
        ("accumulate_batches", None, "must be a whole number, got null."),
        ("max_time", "5 epochs", 'must be above 0 and written as "30 s", "10 min" or "8 h", got "5 epochs".'),
        ("max_time", 600, 'must be above 0 and written as "30 s", "10 min" or "8 h", got 600.'),
        ("clip_grad_norm", 0.0, "must be greater than 0.0, got 0.0."),
        (
            "scheduler_interval",
            "1 min",
            'must be a number of epochs or steps, as in "1 epoch" or "200 steps", got "1 min".',
        ),
        ("epochs", [3], "must be a whole number, got [3]."),
        ("seed", -1, "must be at least 0, got -1."),
        ("seed", "x", 'must be a whole number, got "x".'),
        ("compile", 1, 'must be true or false or an object, as in {"name": "value"}, got 1.'),
        ("compile", "true", 'must be true or false or an object, as in {"name": "value"}, got "true".'),
        ("precision", "fp8", "must be one of 'fp32', 'bf16' or 'fp16', got \"fp8\"."),
        ("precision", "bf-16", "must be one of 'fp32', 'bf16' or 'fp16', got \"bf-16\". Did you mean 'bf16'?"),
        ("device", 0, "must be text, got 0."),
        ("device", "", 'must be "auto" or a device such as "cpu", "cuda", "cuda:1" or "mps", got "".'),
        ("device", "cuda:", 'must be "auto" or a device such as "cpu", "cuda", "cuda:1" or "mps", got "cuda:".'),
        ("device", "CUDA\n", 'must be "auto" or a device such as "cpu", "cuda", "cuda:1" or "mps", got "CUDA\\n".'),
        (
            "checkpoint_interval",
            -1,
            (
                'must be 0 or above 0 and written as "5 epochs", "200 steps" or "10 min" (also s and h); '
                "a bare number means epochs, got -1."
            ),
        ),
    ],
)
def test_training_with_a_wrong_value_names_key_value_and_what_is_accepted(name: str, value: Any, fault: str) -> None:
    assert training_fault(name, value) == f"bz.json: `training.{name}` {fault}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 1_000_000_000),
        ("seed", 0),
        ("seed", 2**63 - 1),
        ("seed", None),
        ("device", "cpu"),
        ("device", "cuda:1"),
        ("device", "mps"),
        ("device", "xpu:0"),
        ("checkpoint_interval", 0),
    ],
)
def test_training_with_a_good_value_keeps_it(name: str, value: Any) -> None:
    assert getattr(load({"training": {name: value}}).training, name) == value


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (
            {"training": {"epoch": 3}},
            "unknown key `training.epoch`. Did you mean 'epochs'?",
        ),
        (
            {"epochs": 3},
            (
                "unknown key `epochs`; accepted: hyperparameters, metrics, plugins, strict_plugins, training. "
                "Did you mean `training.epochs`?"
            ),
        ),
        (
            {"schema_file": "x"},
            "unknown key `schema_file`; accepted: hyperparameters, metrics, plugins, strict_plugins, training.",
        ),
        (
            {"plugins": {"email": {"smtp_server": "x"}}},
            (
                "unknown key `plugins.email.smtp_server`; accepted: config, enabled. "
                "A plugin's own settings belong under `config`: `plugins.email.config.smtp_server`."
            ),
        ),
        (
            {"x\ny": 1},
            'unknown key `"x\\ny"`; accepted: hyperparameters, metrics, plugins, strict_plugins, training.',
        ),
        ({"training": 3}, '`training` must be an object, as in {"name": "value"}, got 3.'),
        ({"plugins": ["email"]}, '`plugins` must be an object, as in {"name": "value"}, got ["email"].'),
        ({"plugins": {"email": True}}, '`plugins.email` must be an object, as in {"name": "value"}, got true.'),
        ({"plugins": {"email": {"enabled": 1}}}, "`plugins.email.enabled` must be true or false, got 1."),
        ({"metrics": {"accuracy": 3}}, '`metrics.accuracy` must be an object, as in {"name": "value"}, got 3.'),
        ({"$schema": 3}, "`$schema` must be text, got 3."),
    ],
)
def test_load_a_wrong_shape_says_what_is_accepted(settings: Any, fault: str) -> None:
    assert faults(settings) == (f"bz.json: {fault}",)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (
            {"mod": "default"},
            (
                "unknown key `training.compile.mod`; accepted: backend, dynamic, fullgraph, mode, options. "
                "Did you mean 'mode'?"
            ),
        ),
        ({"fullgraph": 3}, "`training.compile.fullgraph` must be true or false, got 3."),
        ({"mode": "default", "options": {"a": 1}}, "`training.compile` must have `mode` or `options`, not both."),
    ],
)
def test_fault_inside_a_member_of_a_union_is_named_where_it_is(value: Any, fault: str) -> None:
    assert faults({"training": {"compile": value}}) == (f"bz.json: {fault}",)


def test_clipping_in_two_ways_is_refused() -> None:
    found = faults({"training": {"clip_grad_norm": 1.0, "clip_grad_value": 0.5}})
    assert found == ("bz.json: `training` must have `clip_grad_norm` or `clip_grad_value`, not both.",)


def test_keywords_of_the_trainer_are_the_settings_of_the_training() -> None:
    assert list(TrainingOptions.__annotations__) == list(TrainingSettings.model_fields)


@pytest.mark.parametrize(
    ("settings", "limit"),
    [({}, 1), ({"epochs": 3}, 3), ({"max_steps": 5}, None), ({"max_time": "1 h"}, None),
     ({"epochs": 3, "max_steps": 5}, 3)],
)  # fmt: skip
def test_epochs_are_one_unless_something_else_ends_the_run(settings: dict[str, Any], limit: int | None) -> None:
    assert TrainingSettings.model_validate(settings).epoch_limit == limit


def test_load_several_faults_reports_all_of_them() -> None:
    found = faults({"training": {"epochs": 0, "devise": "cpu"}, "hyperparameters": {"key": "${UNSET}"}}, ["seed"])
    assert found == (
        "`--set`: \"seed\" has no '='; write it as --set training.epochs=3.",
        "bz.json: `hyperparameters.key` reads the environment variable UNSET, which is not set.",
        "bz.json: `training.epochs` must be at least 1, got 0.",
        "bz.json: unknown key `training.devise`. Did you mean 'device'?",
    )


def test_reference_is_replaced_wherever_text_is() -> None:
    settings = {"hyperparameters": {"a": "${X}-${Y}", "b": ["${X}"], "c": "$${X}", "d": "$X", "e": "${EMPTY}"}}
    config = load(settings, environ={"X": "1", "Y": "${Z}", "EMPTY": ""})
    assert config.hyperparameters == {"a": "1-${Z}", "b": ["1"], "c": "${X}", "d": "$X", "e": ""}


def test_reference_in_an_override_is_replaced() -> None:
    config = load({}, ["training.device=${DEVICE}"], {"DEVICE": "cpu"})
    assert config.training.device == "cpu"


@pytest.mark.parametrize("text", ["${", "${}", "${1X}", "${A B}", "a ${X"])
def test_reference_without_a_name_says_how_to_write_it(text: str) -> None:
    assert faults({"hyperparameters": {"a": text}}, environ={"X": "1"}) == (
        (
            "bz.json: `hyperparameters.a` holds a '${' without a variable's name and '}'; "
            "write '$${' for the two characters alone."
        ),
    )


def test_reference_to_an_unset_variable_names_key_and_close_match() -> None:
    assert faults(
        {"plugins": {"email": {"config": {"password": "${SMTP_PASWORD}"}}}}, environ={"SMTP_PASSWORD": "x"}
    ) == (
        (
            "bz.json: `plugins.email.config.password` reads the environment variable SMTP_PASWORD, which is not set. "
            "Did you mean 'SMTP_PASSWORD'?"
        ),
    )


def test_reference_with_a_refused_value_shows_both() -> None:
    assert faults({"training": {"precision": "${P}"}}, environ={"P": "fp8"}) == (
        "bz.json: `training.precision` must be one of 'fp32', 'bf16' or 'fp16', got \"fp8\" (written as \"${P}\").",
    )


def test_record_has_defaults_and_neither_secrets_nor_variables() -> None:
    settings = {
        "$schema": "x",
        "hyperparameters": {"api_key": "canary", "host": "${HOST}", "pad_token": "<pad>"},
        "plugins": {"email": {"config": {"password": "${PW}", "url": "smtp://me:canary@host"}}},
    }
    record = load(settings, ["plugins.email.config.token=canary"], {"PW": "canary", "HOST": "canary"}).record()
    assert "canary" not in json.dumps(record)
    assert record["training"]["epochs"] is None
    assert record["hyperparameters"] == {"api_key": "**********", "host": "${HOST}", "pad_token": "<pad>"}
    assert record["plugins"]["email"] == {
        "enabled": True,
        "config": {"password": "${PW}", "url": "smtp://me:**********@host", "token": "**********"},
    }


def test_record_of_a_config_made_in_python_is_redacted_too() -> None:
    assert Config(hyperparameters={"password": "canary"}).record()["hyperparameters"] == {"password": "**********"}


def test_reference_to_a_variable_that_is_no_text_is_refused() -> None:
    assert faults({"hyperparameters": {"a": "${BROKEN}"}}, environ={"BROKEN": "\udcff"}) == (
        "bz.json: `hyperparameters.a` reads the environment variable BROKEN, which is not UTF-8 text.",
    )
