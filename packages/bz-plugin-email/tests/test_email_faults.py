"""What happens with each kind of mail server; the README's table says the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fault_table import SCENARIOS, TIMEOUT_SECONDS, play, table_line
from mail_servers import Authority

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
HAS_LOGIN = [
    "STARTTLS and login, as they should be",
    "TLS from the first byte, `tls`",
    "550 for one recipient of three",
]


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_fault_ends_as_the_readme_says(name: str, tmp_path: Path, authority: Authority, stranger: Authority) -> None:
    row = play(SCENARIOS[name], tmp_path, authority, stranger)
    assert row.status == "completed"
    assert table_line(name, row) in README.splitlines()
    assert not row.has_leaked
    assert row.seconds < TIMEOUT_SECONDS + 25  # on a busy machine the training itself takes some seconds
    assert (row.num_logins == 1) is (name in HAS_LOGIN or name == "451 for one recipient of three")
    if "waits" in row.fate:
        [mail] = (tmp_path / "run" / "outbox").glob("*.eml")
        assert mail.stat().st_mode & 0o777 == 0o600
        assert row.line.startswith("1 mail waits in RUN/outbox: ")
        assert row.line.endswith("the next session in this run folder sends it, or: bz email flush")
    shutil.rmtree(tmp_path)
