"""The page for people who come from other tools names nothing of bz that is not there."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import bz
from bz import TrainingContext, TrainingResult, TrainingSpec
from bz.config import TrainingSettings
from bz.hookspecs import LIFECYCLE_HOOKS
from bz.plugins.discovery import discover_plugins
from bz.plugins.settings import describe_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[1] / "docs" / "coming-from.md"
TOOLS = ["Lightning", "transformers", "ignite", "Accelerate", "Keras"]
# What stands in the column of bz and is no name of bz.
NOT_OURS = {
    "train.py", "bz.json", "best.pth", "hyperparameters",
    '"bf16"', '"fp16"', '"1 step"',
    "update", "compute", "reset", "weight", "loss", "SequentialLR",
}  # fmt: skip


class Row(NamedTuple):
    """A row of a table: the names in its columns."""

    tool: str
    theirs: list[str]
    ours: list[str]


def rows() -> Iterator[Row]:
    for tool in TOOLS:
        [table] = re.findall(rf"^\| {tool} \| bz \|\n.*\n((?:\|.*\n)+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
        for line in table.splitlines():
            theirs, ours = line.strip("|").split("|")
            yield Row(tool, re.findall("`([^`]+)`", theirs), re.findall("`([^`]+)`", ours))


NAMES = sorted({name for row in rows() for name in row.ours} - NOT_OURS)


def fields(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def plugin_settings() -> dict[str, set[str]]:
    return {plugin.name: set(describe_settings(plugin.load()).model_fields) for plugin in discover_plugins()}


def is_public(path: str) -> bool:
    """Whether a dotted path leads to something that can be imported."""
    module, _, name = path.rpartition(".")
    return hasattr(importlib.import_module(module), name)


def exists(name: str) -> bool:
    owner, _, rest = name.partition(".")
    known: dict[str, set[str]] = {
        "": {*LIFECYCLE_HOOKS, *plugin_settings()},
        "training": set(TrainingSettings.model_fields),
        "context": set(dir(TrainingContext)),
        "TrainingSpec": fields(TrainingSpec),
        "TrainingResult": fields(TrainingResult),
        "Trainer": set(dir(bz.Trainer)),
        "Plugin": set(dir(bz.Plugin)),
        **plugin_settings(),
    }
    if owner in {"bz", "torch", "pandas"}:
        return is_public(name)
    return rest in known.get(owner, ()) if rest else owner in known[""]


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("bz ")])
def test_name_of_bz_exists(name: str) -> None:
    assert exists(name)


@pytest.mark.parametrize("name", ["training.max_epochs", "early_stopping.baseline", "context.step", "on_epoch_end"])
def test_name_that_bz_does_not_have_is_noticed(name: str) -> None:
    assert not exists(name)


def test_every_row_has_names_of_theirs() -> None:
    assert [row for row in rows() if not row.theirs] == []
    assert {row.tool for row in rows()} == set(TOOLS)


def test_names_of_transformers_exist() -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    names = {name for row in rows() if row.tool == "transformers" for name in row.theirs}
    known = {*fields(TrainingArguments), *dir(Trainer), *dir(TrainerCallback)}
    assert names - known == {"EarlyStoppingCallback", "TrainerCallback"}


def test_settings_that_people_look_for_are_on_the_page() -> None:
    """Every setting of the training has a counterpart somewhere, but for those that only bz has."""
    named = {name.removeprefix("training.") for name in NAMES if name.startswith("training.")}
    assert set(TrainingSettings.model_fields) - named == {"async_checkpoint"}
