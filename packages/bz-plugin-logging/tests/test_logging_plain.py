"""Hyperparameters of every kind become JSON, and never an error."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import itertools
import json
import math
from argparse import Namespace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from bz_plugin_logging.plain import plain_hyperparameters, to_json, without_secrets


@dataclasses.dataclass
class Optimizer:
    lr: float
    password: str


class Model(BaseModel):
    depth: int
    token: SecretStr


class Colour(enum.Enum):
    RED = 1


class Loud(enum.StrEnum):
    YES = "yes"


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Curious:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Nameless:
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.1, 0.1),
        ("text", "text"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (10**5000, hex(10**5000)),
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.float32("nan"), "nan"),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (torch.tensor(2.5), 2.5),
        (torch.tensor([1, 2]), [1, 2]),
        (torch.float32, "torch.float32"),
        (torch.device("cpu"), "cpu"),
        (torch.nn.ReLU, "torch.nn.modules.activation.ReLU"),
        (torch.nn.ReLU(), "ReLU()"),
        (PurePosixPath("a/b"), "a/b"),
        (Path("caf\udce9"), "caf\\udce9"),
        (dt.date(2026, 11, 23), "2026-11-23"),
        ({3, 1, 2}, [1, 2, 3]),
        ((1, (2, "x")), [1, [2, "x"]]),
        ({1: "a", None: "b", (2, 3): "c"}, {"1": "a", "None": "b", "(2, 3)": "c"}),
        (1 + 2j, "(1+2j)"),
        (b"x", "b'x'"),
        (Colour.RED, "Colour.RED"),
        (Loud.YES, "yes"),
        (json.dumps, "json.dumps"),
        (Broken(), "<Broken>"),
        (Curious(), "<Curious>"),
    ],
    ids=itertools.count(),
)
def test_value_becomes_json(value: Any, expected: Any) -> None:
    converted = to_json(value)
    assert converted == expected
    assert type(converted) is type(expected)
    json.dumps(converted, allow_nan=False)


def test_objects_are_described_without_their_address() -> None:
    assert to_json(Nameless()) == f"<{__name__}.Nameless object>"


def test_large_array_is_cut() -> None:
    text = to_json(np.arange(100_000))
    assert text.startswith("[")
    assert len(text) < 1100


def test_structure_that_holds_itself_ends() -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    assert json.dumps(to_json(loop)).endswith('"..."' + "}" * 21)


def test_secrets_become_stars_wherever_they_are() -> None:
    secret = {
        "api_key": "canary",
        "optimizer": Optimizer(0.1, "canary"),
        "namespace": Namespace(token="canary", depth=2),
        "model": Model(depth=3, token=SecretStr("canary")),
        "list": [{"smtpPassword": "canary"}],
        "url": "https://me:canary@host/path",
        "max_tokens": 4096,
    }
    stars = "**********"
    assert plain_hyperparameters(secret) == {
        "api_key": stars,
        "optimizer": {"lr": 0.1, "password": stars},
        "namespace": {"token": stars, "depth": 2},
        "model": {"depth": 3, "token": stars},
        "list": [{"smtpPassword": stars}],
        "url": f"https://me:{stars}@host/path",
        "max_tokens": 4096,
    }
    assert without_secrets("bad canary", {"list": [{"smtpPassword": "canary"}]}) == f"bad {stars}"


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.integers() | st.text() | st.floats(), inner) | st.tuples(inner),
)


@given(ANYTHING)
def test_anything_becomes_json_that_reads_back(value: Any) -> None:
    converted = to_json(value)
    assert json.loads(json.dumps(converted, allow_nan=False)) == converted
