"""Lets the tests import the modules beside them, and makes the certificates once."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mail_servers import Authority, MailDrop, mail_drop


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority that the tests trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def drop(authority: Authority) -> Iterator[MailDrop]:
    """A mail server with STARTTLS and login, as it should be."""
    with mail_drop(authority) as running:
        yield running
