"""Checkpoint files: written so that they survive a crash, verified before they are trusted.

A checkpoint is what `torch.save` writes, with the SHA-256 of those bytes as the comment of the zip
archive. `torch.load(path, weights_only=True)` reads it without bz.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import struct
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from bz.durable import make_folder, remove_leftovers, replacing
from bz.errors import CheckpointError
from bz.training.disk import disk_error

logger = logging.getLogger(__name__)

_MARK: Final = b"bz-sha256:"
_COMMENT_SIZE: Final = len(_MARK) + hashlib.sha256().digest_size * 2
_READABLE: Final = {
    *(type(None), bool, int, float, complex, str, bytes),
    *(torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device),
}
_NO_COMMENT: Final = b"\0\0"
"""Length of the archive's comment, the last two bytes of a file that has none."""


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write `state` so that `path` is at every moment whole: the old file or the new one.

    Raises:
        CheckpointError: If something in the state could not be read back with `weights_only`; or if
            the disk refuses, with the OSError and its errno as the cause: nothing is left behind
            and a file that was at `path` is still there.
    """
    odd = next(_odd_parts(state, ""), None)
    if odd is not None:
        raise CheckpointError(f"Cannot write the checkpoint {path}: {odd} could not be read back.", path=path)
    try:
        make_folder(path.parent)
        with replacing(path) as file:
            torch.save(state, file)
            _append_digest(file)
    except (OSError, RuntimeError) as error:
        cause = disk_error(error)
        if cause is None:
            raise
        raise CheckpointError(f"Cannot write the checkpoint {path}: {cause.strerror or cause}.", path=path) from cause


def _odd_parts(value: Any, place: str) -> Iterator[str]:
    """Yield what `weights_only` does not read, with its type and its place in the state."""
    if type(value) in _READABLE:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _odd_parts(item, f"{place}/{key}" if place else str(key))
    elif isinstance(value, list | tuple | set):
        for index, item in enumerate(value):
            yield from _odd_parts(item, f"{place}/{index}")
    else:
        yield f"{place}, a {type(value).__module__}.{type(value).__qualname__},"


def _append_digest(file: BufferedRandom) -> None:
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest().encode()
    file.seek(-len(_NO_COMMENT), os.SEEK_END)
    file.write(struct.pack("<H", _COMMENT_SIZE) + _MARK + digest)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state in `path`, tensors on the CPU, after its digest was verified.

    Raises:
        CheckpointError: If the file cannot be read, is damaged, or is no checkpoint of bz.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"Cannot read the checkpoint {path}: {error.strerror or error}.", path=path) from error
    if not _is_whole(content):
        raise CheckpointError(f"The checkpoint {path} is damaged, or was not written by bz.", path=path)
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def _is_whole(content: bytes) -> bool:
    archive, comment = content[: -_COMMENT_SIZE - 2], content[-_COMMENT_SIZE:]
    length = content[-_COMMENT_SIZE - 2 : -_COMMENT_SIZE]
    if not comment.startswith(_MARK) or length != struct.pack("<H", _COMMENT_SIZE):
        return False
    digest = hashlib.sha256(archive)
    digest.update(_NO_COMMENT)
    return comment == _MARK + digest.hexdigest().encode()


class FoundCheckpoint(NamedTuple):
    """A verified checkpoint, and those that were passed over because they are damaged."""

    path: Path
    state: dict[str, Any]
    skipped: tuple[CheckpointError, ...]


class RollingCheckpoints:
    """The core's own checkpoints of one run: the newest few, which a resume goes on from.

    Args:
        folder: Where they are; made with the first one.
        keep: How many are kept.
    """

    _NAME: Final = re.compile(r"epoch_(\d+)_step_(\d+)\.pth")

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = folder
        self._keep = keep

    def path_for(self, epoch: int, global_step: int) -> Path:
        """Return the file for a position in the run."""
        return self.folder / f"epoch_{epoch}_step_{global_step}.pth"

    def prune(self) -> None:
        """Delete all but the newest; called when the newest is durable."""
        for path in self._newest_first()[self._keep :]:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("cannot delete the old checkpoint %s: %s", path, error.strerror or error)

    def set_aside_newer(self, epoch: int, global_step: int) -> None:
        """Rename those of a later position: a session that begins before them would take its own for old ones.

        Half a file that a killed session left is removed.
        """
        remove_leftovers(self.folder)
        for path in self._newest_first():
            match = self._NAME.fullmatch(path.name)
            if match is None or (int(match[1]), int(match[2])) <= (epoch, global_step):
                return
            logger.warning("%s is of a later position than this session begins at; set aside as .superseded", path)
            _set_aside(path, ".superseded")

    def newest(self) -> FoundCheckpoint:
        """Return the newest checkpoint that is whole; damaged ones are set aside under another name.

        One that cannot be read is passed over, but keeps its name: it may be whole.

        Raises:
            CheckpointError: If there is none.
        """
        skipped: list[CheckpointError] = []
        for path in self._newest_first():
            try:
                state = read_checkpoint(path)
            except CheckpointError as error:
                skipped.append(error)
                logger.warning("%s Going back to the one before.", error)
                if not isinstance(error.__cause__, OSError):
                    _set_aside(path, ".damaged")
            else:
                return FoundCheckpoint(path, state, tuple(skipped))
        what = "All checkpoints are damaged" if skipped else "There is no checkpoint"
        raise CheckpointError(f"{what} in {self.folder}; start afresh without resuming.", path=self.folder)

    def _newest_first(self) -> list[Path]:
        matches = ((self._NAME.fullmatch(path.name), path) for path in self.folder.glob("epoch_*.pth"))
        numbered = [((int(match[1]), int(match[2])), path) for match, path in matches if match]
        return [path for _, path in sorted(numbered, reverse=True)]


def _set_aside(path: Path, suffix: str) -> None:
    try:
        path.replace(path.with_suffix(suffix))
    except OSError as error:
        logger.warning("%s cannot be renamed: %s", path, error.strerror or error)


def find_checkpoint(where: Path) -> FoundCheckpoint:
    """Return the checkpoint that `where` means: a file, or the newest of a run folder.

    Raises:
        CheckpointError: If there is none that can be trusted.
    """
    if where.is_dir():
        return RollingCheckpoints(where / STATE_FOLDER if (where / STATE_FOLDER).is_dir() else where).newest()
    return FoundCheckpoint(where, read_checkpoint(where), ())


STATE_FOLDER: Final = "state"
