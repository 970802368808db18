"""What a run was made with: versions, the commit of the working folder, the script."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, Final

_GIT_SECONDS: Final = 5.0


def versions() -> dict[str, Any]:
    """Return the versions of what every result depends on; that of torch names its build, such as `2.13.0+cu130`."""
    import torch

    try:
        own = metadata.version("bz-core")
    except metadata.PackageNotFoundError:  # a copy that no package manager put there
        own = None
    return {"bz": own, "python": platform.python_version(), "torch": str(torch.__version__)}


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return `commit` and `is_dirty` (changes to files that git knows), or None outside a git repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "is_dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    # Looking must not write: `git status` would refresh the index.
    environ = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            command, capture_output=True, text=True, errors="replace", timeout=_GIT_SECONDS, check=False, env=environ
        )
    except (OSError, subprocess.SubprocessError):  # no git here, or it takes too long
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def file_digest(path: Path) -> str | None:
    """Return the SHA-256 of a file, or None if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
