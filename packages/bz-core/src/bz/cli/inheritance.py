"""What a resumed run takes from the command line that began it, so that `bz train --resume` says it all.

What is asked for now wins. Secrets are not kept; they have to be given again.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bz.cli import output
from bz.cli.preparation import TrainRequest

logger = logging.getLogger(__name__)


def options_of(request: TrainRequest) -> dict[str, Any]:
    """Return what a command line asked for, without secrets, as `run.json` keeps it."""
    overrides = [*request.inherited, *request.overrides, *request.short_overrides]
    last = {text.partition("=")[0]: text for text in overrides}
    return {
        "config": str(request.config.absolute()) if request.config is not None else None,
        "set": [_without_secrets(text) for text in last.values()],
        "plugins": {"only": request.plugins.only, "without": request.plugins.without, "none": request.plugins.none},
    }


def _without_secrets(text: str) -> str:
    """Return `KEY=VALUE` with stars in place of the value if there is a secret in it."""
    from bz.config.overrides import parse_override
    from bz.config.redaction import STARS, is_secret_key, redact

    override = parse_override(text)
    is_secret = any(map(is_secret_key, override.keys)) or redact(override.value) != override.value
    key = text.partition("=")[0]
    return f"{key}={STARS}" if is_secret or output.redacted(text) != text else text


def inherit(request: TrainRequest, record: Mapping[str, Any]) -> TrainRequest:
    """Return the request with what the run was asked for when it began, where nothing else is asked for now."""
    from bz.plugins.selection import PluginRequest

    options = record.get("options")
    options = options if isinstance(options, Mapping) else {}
    now = {text.partition("=")[0] for text in (*request.overrides, *request.short_overrides)}
    script, config = record.get("script"), options.get("config")
    return replace(
        request,
        script=request.script or (Path(script) if isinstance(script, str) else None),
        config=request.config or (Path(config) if isinstance(config, str) else None),
        inherited=tuple(_usable(_texts(options.get("set")), now)),
        plugins=request.plugins if request.plugins != PluginRequest() else _plugins(options.get("plugins")),
    )


def _usable(texts: Sequence[str], now: set[str]) -> Iterator[str]:
    from bz.config.redaction import STARS

    for text in texts:
        key = text.partition("=")[0]
        if key in now:
            continue
        if STARS in text:
            logger.warning("`--set %s` of the run is a secret, which is not kept; give it again if it is needed", key)
        else:
            yield text


def _plugins(value: Any) -> Any:
    from bz.plugins.selection import PluginRequest

    section = value if isinstance(value, Mapping) else {}
    return PluginRequest(
        only=tuple(_texts(section.get("only"))),
        without=tuple(_texts(section.get("without"))),
        none=section.get("none") is True,
    )


def _texts(value: Any) -> Sequence[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
