"""Python's garbage collector while a command is getting ready."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

NEW_OBJECTS: Final = 50_000
"""Objects made since the last look for garbage, until the next; by default 700, or 2000 in newer Pythons."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look for garbage rarely: importing torch and its compiler makes a million objects that all stay.

    To look through them again and again takes a sixth of the time of the imports.
    """
    before = gc.get_threshold()
    gc.set_threshold(NEW_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
