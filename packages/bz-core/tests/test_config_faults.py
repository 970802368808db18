"""What pydantic says about any model, such as the settings of a plugin, in sentences."""

import enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from bz.config import check_arguments, describe_faults
from bz.errors import ConfigError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def check_even(number: int) -> int:
    if number % 2:
        raise ValueError("Odd numbers\nare not even.")
    return number


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    host: str
    port: int = 25


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Inner | None = None
    inners: list[Inner] = []
    by_name: dict[str, Inner] = {}
    either: int | list[int] | None = None
    even: Annotated[int, AfterValidator(check_even)] = 2
    colour: Colour = Colour.RED
    word: Literal["a", "b"] = "a"
    name: str = Field(default="abc", min_length=2, max_length=4, pattern="^[a-z]*$")
    ratio: float = Field(default=0.5, gt=0, lt=1, allow_inf_nan=False)
    step: int = Field(default=5, multiple_of=5)
    tags: list[str] = Field(default=["a"], min_length=1, max_length=2)
    pair: tuple[int, int] = (1, 2)
    folder: Path = Path()
    pin: SecretStr | None = Field(default=None, min_length=3)
    password: str = Field(default="", pattern="^$")

    @model_validator(mode="after")
    def check_pair(self) -> "Settings":
        if self.pair[0] > self.pair[1]:
            raise ValueError("The pair must be in order")
        return self


def sentences(settings: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(settings)
    return [fault.text for fault in describe_faults(caught.value, Settings, settings, prefix=("plugins", "x"))]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"inner": {}}, "`plugins.x.inner.host` is required."),
        ({"inner": {"host": 1}}, "`plugins.x.inner.host` must be text, got 1."),
        ({"inner": 3}, '`plugins.x.inner` must be an object, as in {"name": "value"}, got 3.'),
        (
            {"inner": {"host": "x", "prot": 3}},
            "unknown key `plugins.x.inner.prot`; accepted: host, port. Did you mean 'port'?",
        ),
        ({"inners": [{"host": "x"}, {"hots": 1, "host": "x"}]},
         "unknown key `plugins.x.inners[1].hots`; accepted: host, port. Did you mean 'host'?"),
        ({"by_name": {"a b": {"host": 1}}}, '`plugins.x.by_name."a b".host` must be text, got 1.'),
        ({"either": "x"}, '`plugins.x.either` must be a whole number or a list, got "x".'),
        ({"even": 3}, "`plugins.x.even` is not accepted: Odd numbers are not even, got 3."),
        ({"colour": "rad"}, "`plugins.x.colour` must be one of 'red' or 'blue', got \"rad\". Did you mean 'red'?"),
        ({"word": "c"}, "`plugins.x.word` must be one of 'a' or 'b', got \"c\"."),
        ({"name": "a"}, '`plugins.x.name` must have at least 2 characters, got "a".'),
        ({"name": "abcde"}, '`plugins.x.name` must have at most 4 characters, got "abcde".'),
        ({"name": "AB"}, '`plugins.x.name` must match ^[a-z]*$, got "AB".'),
        ({"ratio": 0}, "`plugins.x.ratio` must be greater than 0.0, got 0."),
        ({"ratio": 1}, "`plugins.x.ratio` must be less than 1.0, got 1."),
        ({"ratio": "x"}, '`plugins.x.ratio` must be a number, got "x".'),
        ({"ratio": float("nan")}, "`plugins.x.ratio` must be a finite number, got NaN."),
        ({"step": 3}, "`plugins.x.step` must be a multiple of 5, got 3."),
        ({"step": 2.5}, "`plugins.x.step` must be a whole number, got 2.5."),
        ({"tags": []}, "`plugins.x.tags` must have at least 1 items, got []."),
        ({"tags": "a"}, '`plugins.x.tags` must be a list, got "a".'),
        ({"pair": [1]}, "`plugins.x.pair[1]` is required."),
        ({"pair": [2, 1]}, "`plugins.x` is not accepted: The pair must be in order."),
        ({"folder": 3}, "`plugins.x.folder` must be a path, got 3."),
        ({"pin": "77"}, '`plugins.x.pin` must have at least 3 characters, got "**********".'),
        ({"password": "canary"}, '`plugins.x.password` must match ^$, got "**********".'),
        (3, '`plugins.x` must be an object, as in {"name": "value"}, got 3.'),
    ],
)  # fmt: skip
def test_fault_of_a_model_is_one_sentence(settings: Any, sentence: str) -> None:
    assert sentences(settings) == [sentence]


def test_arguments_that_are_accepted_are_settings() -> None:
    assert check_arguments(Inner, "connect", host="a", port=1) == Inner(host="a", port=1)


def test_arguments_that_are_not_accepted_are_faults_of_what_was_called() -> None:
    with pytest.raises(ConfigError) as caught:
        check_arguments(Inner, "connect", port="x", prot=1)
    assert sorted(caught.value.faults) == [
        "connect: `host` is required.",
        'connect: `port` must be a whole number, got "x".',
        "connect: unknown key `prot`; accepted: host, port. Did you mean 'port'?",
    ]
    assert isinstance(caught.value.__cause__, ValidationError)
