"""The table of faults in the documentation names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[4]
ROWS = [
    line.split("|")[1:-1]
    for line in (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and "::" in line
]


def is_there(reference: str) -> bool:
    """Whether exactly one file of that name holds the test."""
    file, _, test = reference.partition("::")
    (path,) = ROOT.glob(f"packages/*/tests/**/{file}")
    return re.search(rf"^(?:def {test}\(|{test} = )", path.read_text(encoding="utf-8"), re.MULTILINE) is not None


def test_every_fault_names_tests_that_exist() -> None:
    missing = [
        reference for *_, tests in ROWS for reference in re.findall(r"`([^`]+)`", tests) if not is_there(reference)
    ]
    assert missing == []
    assert all(re.fullmatch(r" (`test_\w+\.py::\w+` )+", tests) for *_, tests in ROWS)


def test_every_row_says_what_is_seen_and_what_is_kept() -> None:
    assert len(ROWS) > 20
    assert [row for row in ROWS if len(row) != 4 or not all(cell.strip() for cell in row)] == []


def test_every_module_of_faults_is_in_the_table() -> None:
    named = {name for *_, tests in ROWS for name in re.findall(r"`(test_\w+\.py)::", tests)}
    ours = {path.name for path in Path(__file__).parent.glob("test_*.py")} - {Path(__file__).name}
    assert ours <= named
