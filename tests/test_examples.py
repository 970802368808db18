"""Each example has the same files, and what its script builds trains; `nox -s examples` runs them to their end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bz import Trainer
from bz.config import load_config
from bz.script import load_script

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path.parent for path in ROOT.glob("examples/*/train.py"))


@pytest.fixture(autouse=True)
def _forget_the_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Load each example as if it were the first."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("train", None)


def test_examples_are_there() -> None:
    assert [path.name for path in EXAMPLES] == ["diabetes", "digits", "gan", "pairs", "transformer"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_has_the_files_of_every_example(example: Path) -> None:
    assert {"README.md", "bz.json", "train.py"} <= {path.name for path in example.iterdir()}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_takes_steps_and_validates(example: Path) -> None:
    config = load_config(example / "bz.json")
    spec = load_script(example / "train.py", config.hyperparameters).spec
    changes = {"epochs": None, "max_steps": 2, "limit_validation_batches": 1, "checkpoint_interval": 0, "device": "cpu"}
    result = Trainer().run(spec, config.training.model_copy(update=changes))
    assert (result.status, result.global_step) == ("completed", 2)
    assert ("validation_loss" in result.history[0]) == (spec.validation_loader is not None)


def test_list_of_examples_names_each_one() -> None:
    listed = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES if f"]({path.name}/README.md)" not in listed] == []
