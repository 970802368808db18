"""What pydantic found wrong, in sentences: the key, what is accepted, the value, and the close match."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Secret, SecretBytes, SecretStr, ValidationError

from bz.config.redaction import is_secret_key
from bz.config.wording import Fault, key_path, show_value
from bz.errors import ConfigError, suggestion

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Keys = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

_OBJECT = 'must be an object, as in {{"name": "value"}}'
_REQUIREMENTS = MappingProxyType(
    {
        "bool_parsing": "must be true or false",
        "bool_type": "must be true or false",
        "dict_type": _OBJECT,
        "enum": "must be one of {expected}",
        "finite_number": "must be a finite number",
        "float_parsing": "must be a number",
        "float_type": "must be a number",
        "greater_than": "must be greater than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "int_from_float": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_parsing_size": "must be a whole number of at most 64 bits",
        "int_type": "must be a whole number",
        "less_than": "must be less than {lt}",
        "less_than_equal": "must be at most {le}",
        "list_type": "must be a list",
        "literal_error": "must be one of {expected}",
        "mapping_type": _OBJECT,
        "model_attributes_type": _OBJECT,
        "model_type": _OBJECT,
        "multiple_of": "must be a multiple of {multiple_of}",
        "none_required": "must be null",
        "path_type": "must be a path",
        "string_pattern_mismatch": "must match {pattern}",
        "string_too_long": "must have at most {max_length} characters",
        "string_too_short": "must have at least {min_length} characters",
        "string_type": "must be text",
        "too_long": "must have at most {max_length} items",
        "too_short": "must have at least {min_length} items",
        "tuple_type": "must be a list",
    }
)
_OWN_WORDS = frozenset({"assertion_error", "value_error"})  # raised by a validator, which says it all
_MAX_TEXT_LENGTH = 200
_MANY = 12
"""So many accepted keys are no help beside the close match."""


def check_arguments(model: type[Model], culprit: str, /, **arguments: Any) -> Model:
    """Return the settings that the arguments of a call are.

    Not for secrets: the `__cause__` of the error is pydantic's own, which shows the values.

    Args:
        model: What is accepted.
        culprit: What was called, such as `Trainer.train`; each sentence begins with it.
        arguments: What it was called with.

    Raises:
        ConfigError: With one sentence for each argument that is not accepted.
    """
    try:
        return model.model_validate(arguments)
    except ValidationError as error:
        faults = describe_faults(error, model, arguments)
        raise ConfigError.join(ConfigError(f"{culprit}: {fault.text}") for fault in faults) from error


def describe_faults(
    error: ValidationError, model: type[BaseModel], settings: Any, *, prefix: Sequence[str] = ()
) -> tuple[Fault, ...]:
    """Return one fault for each key that pydantic refused.

    Args:
        error: What `model.model_validate(settings)` raised.
        model: Where the accepted keys are looked up.
        settings: What was validated.
        prefix: The keys above `settings`, such as `("plugins", "email", "config")`.
    """
    by_keys: dict[Keys, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        by_keys.setdefault(_real_keys(details, settings, model), []).append(details)
    for keys in [keys for keys in by_keys if any(_is_inside(other, keys) for other in by_keys)]:
        del by_keys[keys]  # the other members of a union, where one fits but for something in it
    return tuple(_fault(keys, details, model, tuple(prefix)) for keys, details in by_keys.items())


def _real_keys(details: ErrorDetails, settings: Any, model: type[BaseModel]) -> Keys:
    """Return the location without the names of union members and validators that pydantic appends.

    A key that is not in the settings is real where it is missing, or where its default was refused.
    """
    keys: list[str | int] = []
    current = settings
    for index, key in enumerate(details["loc"]):
        if _has(current, key):
            current = current[key]
        elif isinstance(current, Mapping) and index < len(details["loc"]) - 1:
            continue
        elif not isinstance(current, Mapping | list | tuple) or (
            details["type"] != "missing" and not _is_field(key, _type_at(model, tuple(keys)))
        ):
            break
        keys.append(key)
    return tuple(keys)


def _is_field(key: str | int, annotation: Any) -> bool:
    owner = _as_model(annotation)
    return owner is not None and key in _field_names(owner)


def _is_inside(keys: Keys, outer: Keys) -> bool:
    return len(keys) > len(outer) and keys[: len(outer)] == outer


def _has(value: Any, key: str | int) -> bool:
    if isinstance(value, Mapping):
        return key in value
    return isinstance(value, list | tuple) and isinstance(key, int) and key < len(value)


def _fault(keys: Keys, details: list[ErrorDetails], model: type[BaseModel], prefix: Keys) -> Fault:
    full = prefix + keys
    own = [detail for detail in details if detail["type"] in _OWN_WORDS]
    if own and isinstance(details[0]["input"], Mapping):
        details = own  # what the other members of a union say of an object is of no use
    where = f"`{key_path(full)}`" if full else "the value"
    kinds = {detail["type"] for detail in details}
    if "extra_forbidden" in kinds:
        return Fault(full, f"unknown key {where}{_accepted(model, keys)}")
    if kinds == {"missing"}:
        return Fault(full, f"{where} is required.")
    is_secret = any(is_secret_key(key) for key in full if isinstance(key, str)) or _is_secret(_type_at(model, keys))
    requirement = _join([_requirement(detail, is_secret=is_secret) for detail in details])
    value = details[0]["input"]
    if kinds <= _OWN_WORDS and isinstance(value, Mapping | list | tuple):
        return Fault(full, f"{where} {requirement}.")
    shown = show_value(full, value, is_secret=is_secret)
    return Fault(full, f"{where} {requirement}, got {shown}.{_closest(details[0], value)}")


def _join(requirements: list[str]) -> str:
    """Return the requirements of all members of a union as one: `must be text or a list`."""
    first, *others = dict.fromkeys(requirements)
    return " or ".join([first, *(other.removeprefix("must be ") for other in others)])


def _requirement(details: ErrorDetails, *, is_secret: bool) -> str:
    context = details.get("ctx", {})
    is_text = isinstance(details["input"], str) and details["type"] in {"too_long", "too_short"}
    if template := _REQUIREMENTS.get(f"string_{details['type']}" if is_text else details["type"]):
        text = template.format_map(context)
        is_single = details["type"] == "literal_error" and " or " not in context["expected"]
        return text.replace("one of ", "") if is_single else text
    if is_secret:
        return "is not accepted"
    text = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in details["msg"])).strip()
    text = re.sub(r"^(Value error|Assertion failed), ", "", text)
    text = re.sub(r"^(Input|Value|\w+) should ", "must ", text)
    text = text[:_MAX_TEXT_LENGTH].rstrip(".") or "is not accepted"
    return text if text.startswith(("must ", "is ", "has ")) else f"is not accepted: {text}"


def _closest(details: ErrorDetails, value: Any) -> str:
    expected = details.get("ctx", {}).get("expected")
    if not isinstance(value, str) or not isinstance(expected, str):
        return ""
    return suggestion(value, re.findall(r"'([^']*)'", expected))


def _accepted(model: type[BaseModel], keys: Keys) -> str:
    """Return `; accepted: ...` with the close match, for an unknown key."""
    owner = _as_model(_type_at(model, keys[:-1]))
    if owner is None:
        return "."
    word = str(keys[-1])
    names = [name for name in _field_names(owner) if not name.startswith("$")]
    hint = suggestion(word, names)
    for path in _paths_to(word, owner):
        hint = f" Did you mean `{key_path((*keys[:-1], *path))}`?"
    if hint and len(names) > _MANY:
        return f".{hint}"
    known = f"; accepted: {', '.join(sorted(names))}." if names else "; there are no keys to set."
    return known + hint


def _paths_to(word: str, owner: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield the places one level further down where a key of that name is accepted."""
    for name, field in owner.model_fields.items():
        inner = _as_model(field.annotation)
        if inner is not None and word in _field_names(inner):
            yield name, word


def _field_names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _type_at(model: type[BaseModel], keys: Keys) -> Any:
    """Return the type that the value at `keys` is checked against, or None if anything may stand there."""
    current: Any = model
    for key in keys:
        owner = _as_model(current)
        if owner is not None:
            fields = dict(zip(_field_names(owner), owner.model_fields.values(), strict=True))
            current = fields[str(key)].annotation if str(key) in fields else None
        else:
            arguments = get_args(current)
            current = arguments[-1] if arguments else None
    return current


def _is_secret(annotation: Any) -> bool:
    """Whether the type is a secret, or has one inside, such as `SecretStr | None`."""
    is_type = isinstance(annotation, type) and not get_args(annotation)
    return (is_type and issubclass(annotation, Secret | SecretStr | SecretBytes)) or any(
        _is_secret(argument) for argument in get_args(annotation)
    )


def _as_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a type such as `Model`, `Model | bool | None` or `Annotated[Model, ...]` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is Annotated:
        return _as_model(get_args(annotation)[0])
    models = [model for member in get_args(annotation) if (model := _as_model(member)) is not None]
    return models[0] if len(models) == 1 and get_origin(annotation) in {Union, UnionType} else None
