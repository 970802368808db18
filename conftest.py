"""What all tests of the workspace share."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Take SIGINT as a terminal would send it, also where it is ignored: a shell does that to what it runs with `&`.

    Processes that tests start inherit it, and some of those tests press Ctrl-C.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
