"""What all tests of the workspace share."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

settings.register_profile("workspace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("workspace")


def pytest_configure() -> None:
    """Make the processes that tests start inherit what they would have on a terminal.

    A shell ignores SIGINT for what it runs with `&`, and some tests press Ctrl-C. pytest-xdist says
    how wide the terminal is, and some tests have one of their own. torch's threads wait for one
    another when the cores are busy with other tests, and the models of tests need only one.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
