"""From the settings file, the options and the environment to one frozen `Config`."""

from __future__ import annotations

import copy
import functools
import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bz.config.faults import describe_faults
from bz.config.files import read_settings_file
from bz.config.models import Config
from bz.config.overrides import Override, apply_override, find_source, parse_override
from bz.config.references import expand, has_reference
from bz.config.wording import Fault, display_path, key_path, quote
from bz.errors import ConfigError


def load_config(path: Path | None, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Config:
    """Return the settings of the file, changed by `overrides`, checked, with `${NAME}` replaced.

    Args:
        path: The settings file, or None for the defaults.
        overrides: Each as in `training.epochs=3`; later ones win.
        environ: Where `${NAME}` is looked up; `os.environ` when None.

    Raises:
        ConfigError: With every fault, one sentence each.
    """
    in_file = read_settings_file(path) if path else {}
    file = display_path(path) if path else "settings"
    options, errors = _parse_all(overrides)
    written = copy.deepcopy(in_file)
    for option in options:
        if fault := apply_override(written, option):
            errors.append(ConfigError(f"{option.source}: {fault.text}", option=key_path(fault.keys)))
    faults: list[Fault] = []
    expanded = expand(written, os.environ if environ is None else environ, faults)
    config, refused = _validate(expanded, written)
    unread = {fault.keys for fault in faults}
    faults += [fault for fault in refused if fault.keys not in unread]
    for fault in faults:
        source = find_source(fault.keys, options, in_file, file)
        errors.append(ConfigError(f"{source}: {fault.text}", path=path, option=key_path(fault.keys)))
    if config is None or errors:
        raise ConfigError.join(errors)
    return config


def _parse_all(overrides: Sequence[str]) -> tuple[list[Override], list[ConfigError]]:
    options: list[Override] = []
    errors: list[ConfigError] = []
    for text in overrides:
        try:
            options.append(parse_override(text))
        except ValueError as error:
            errors.append(ConfigError(str(error), option="--set"))
    return options, errors


def _validate(expanded: dict[str, Any], written: dict[str, Any]) -> tuple[Config | None, list[Fault]]:
    try:
        return Config.model_validate(expanded, context=written), []
    except ValidationError as error:
        faults = describe_faults(error, Config, expanded)
        return None, [_with_origin(fault, written) for fault in faults]


def _with_origin(fault: Fault, written: Any) -> Fault:
    """Add what only the file shows: the variable behind a value, and where a plugin's own settings belong."""
    value = functools.reduce(operator.getitem, fault.keys, written)
    if has_reference(value):
        return Fault(fault.keys, f"{fault.text.rstrip('.')} (written as {quote(value)}).")
    match fault.keys:
        case ("plugins", str(name), str(key)) if fault.text.startswith("unknown key"):
            belongs = key_path(("plugins", name, "config", key))
            return Fault(fault.keys, f"{fault.text} A plugin's own settings belong under `config`: `{belongs}`.")
        case _:
            return fault
