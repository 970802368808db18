"""The JSON schema of the settings file, for editors and for checks outside bz."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bz.config.models import Config

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLUGIN = "#/$defs/PluginSettings"


def settings_schema(plugins: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    """Return the schema of `bz.json`.

    Args:
        plugins: The installed plugins by name, each with the schema of its `config`, or None where it is unknown.
    """
    schema = Config.model_json_schema()
    definitions = schema.pop("$defs")
    section = schema["properties"]["plugins"]
    section["properties"] = {name: _plugin(name, config, definitions) for name, config in sorted(plugins.items())}
    section["patternProperties"] = {_other_spelling(name): plugin for name, plugin in section["properties"].items()}
    return {"$schema": _DIALECT, **schema, "$defs": definitions}


def _plugin(name: str, config: Mapping[str, Any] | None, definitions: dict[str, Any]) -> dict[str, Any]:
    """Add the definitions of one plugin under names of its own and return a reference to its settings."""
    if config is None:
        return {"$ref": _PLUGIN}
    inner = dict(config)
    for key, definition in inner.pop("$defs", {}).items():
        definitions[f"{name}.{key}"] = _qualify(definition, name)
    settings = definitions["PluginSettings"]
    properties = settings["properties"] | {"config": _qualify(inner, name)}
    definitions[f"{name}.plugin"] = settings | {"properties": properties, "title": name}
    return {"$ref": f"#/$defs/{name}.plugin"}


def _qualify(value: Any, name: str) -> Any:
    """Return a copy in which every reference to a definition says whose it is."""
    if isinstance(value, Mapping):
        return {
            key: re.sub(r"^#/\$defs/", f"#/$defs/{name}.", item)
            if key == "$ref" and isinstance(item, str)
            else _qualify(item, name)
            for key, item in value.items()
        }
    return [_qualify(item, name) for item in value] if isinstance(value, list) else value


def _other_spelling(name: str) -> str:
    """Return the pattern of `email_plugin`, `bz-plugin-email` and the like, which all mean `email`."""
    words = re.split(r"[-_.]", name)
    core = "[-_.]".join(map(re.escape, words))
    return f"^(bz[-_.]plugin[-_.])?{core}([-_.]plugin)?$"
