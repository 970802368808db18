"""The samples of a run that was killed again and again come in the order of a run that was not."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.test_kill_points import needs_fork, run_script


@needs_fork
@pytest.mark.parametrize("num_workers", [0, 2])
def test_samples_come_in_the_same_order_across_kills(num_workers: int, tmp_path: Path) -> None:
    (line,) = run_script("sample_order", tmp_path, num_workers, 5)
    assert line["kills"] >= 4
    assert line["repeated"] > 0
    assert (line["different"], line["missing"]) == ([], [])
