"""What a run may be called."""

from __future__ import annotations

import re
from typing import Final

from bz.config.wording import quote
from bz.errors import ConfigError

_FORM: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_DEVICES: Final = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # taken on Windows


def check_name(name: str) -> None:
    """Refuse a name that is no plain folder name on every system.

    Raises:
        ConfigError: It is not 1 to 100 letters, digits, dots, dashes and underscores.
    """
    if _FORM.fullmatch(name) is None:
        raise ConfigError(
            f"`--name`: {quote(name)} is no name for a run; accepted are up to 100 letters (a to z), digits, '.', '_' "
            "and '-', beginning with a letter or digit and not ending in '.'.",
            option="--name",
        )
    if _DEVICES.fullmatch(name):
        raise ConfigError(f"`--name`: {quote(name)} is the name of a device on Windows; take another.", option="--name")
