"""What a distribution brings along, by the metadata of what is installed here."""

from __future__ import annotations

import json
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlparse

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(name: str) -> set[str]:
    """Return the distribution and all that it needs here, extras left out; a package that is missing is not counted."""
    found: set[str] = set()
    waiting = [(canonicalize_name(name), frozenset[str]())]
    seen = set()
    while waiting:
        current, extras = waiting.pop()
        try:
            requirements = [Requirement(text) for text in distribution(current).requires or []]
        except PackageNotFoundError:
            continue
        found.add(current)
        for requirement in requirements:
            needed = canonicalize_name(requirement.name), frozenset(requirement.extras)
            if needed not in seen and _applies(requirement, extras):
                seen.add(needed)
                waiting.append(needed)
    return found


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in [*extras, ""])


def size_bytes(name: str) -> int:
    """Return the size of the files of a distribution, compiled bytecode left out."""
    installed = distribution(name)
    folder = _editable_folder(installed)
    if folder is not None:
        paths = [path for path in (folder / "src").rglob("*") if path.is_file()]
    else:
        paths = [Path(str(installed.locate_file(file))) for file in installed.files or []]
    return sum(path.stat().st_size for path in paths if path.suffix != ".pyc" and path.is_file())


def _editable_folder(installed: Distribution) -> Path | None:
    """Return the project that an editable installation points to."""
    written = installed.read_text("direct_url.json")
    if written is None or not json.loads(written).get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlparse(json.loads(written)["url"]).path))
