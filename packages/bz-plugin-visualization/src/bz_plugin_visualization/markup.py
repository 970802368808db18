"""HTML and SVG whose text is always escaped: what is not made by `element` cannot become an element."""

from __future__ import annotations

import html
import re
from typing import Final

VOID_ELEMENTS: Final = frozenset({"meta"})
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


class Markup(str):
    """Text that is HTML or SVG already."""

    __slots__ = ()


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """Return an element with the given content.

    Args:
        name: Its name.
        children: `Markup` is taken as it is, everything else is text.
        attributes: Trailing underscores are dropped and others become dashes, as in `class_` and
            `stroke_width`; one that is None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID_ELEMENTS:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*parts: object) -> Markup:
    """Return the parts one after the other."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def escape(text: object) -> str:
    """Return text as it stands in HTML; characters that HTML does not allow are written as in Python."""
    return html.escape(_FORBIDDEN.sub(lambda match: f"\\x{ord(match.group()):02x}", str(text)))
