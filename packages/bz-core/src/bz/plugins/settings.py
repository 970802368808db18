"""From the settings of one plugin to its instance, checked against one description of them.

The description is a pydantic model: the plugin's own `Config`, or one made from the signature of
`__init__`. Messages, `bz plugins show`, the JSON schema and the documentation all come from it.
"""

from __future__ import annotations

import inspect
import typing
from types import ModuleType
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from bz.config.faults import describe_faults
from bz.errors import ConfigError
from bz.plugins.base import Plugin
from bz.plugins.guard import isolated

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FROM_SIGNATURE: Final = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
_OPEN: Final = ConfigDict(extra="allow", arbitrary_types_allowed=True)
_FIELD_PREFIX: Final = "field_"
_PLAIN_TYPES: Final[dict[type, Any]] = {bool: bool, int: int | float, float: int | float, str: str}


class MissingSettingsError(ConfigError):
    """A plugin cannot be built only because required settings were not given.

    Attributes:
        missing: The names of those settings.
    """

    def __init__(self, message: str, *, missing: tuple[str, ...]) -> None:
        super().__init__(message)
        self.missing = missing


def describe_settings(target: object) -> type[BaseModel]:
    """Return the model of a plugin's settings.

    Args:
        target: What the entry point names: usually a class, else a factory, a module or an instance,
            of which the last two have no settings.

    Returns:
        `Config` if the class has one, refusing unknown keys; else a model whose aliases are the
        parameters of the constructor and whose types come from annotations or defaults.
    """
    own = getattr(target, "Config", None)
    if isinstance(own, type) and issubclass(own, BaseModel):
        return own if own.model_config.get("extra") else _forbid_unknown_keys(own)
    if isinstance(target, ModuleType) or not callable(target):
        return create_model("NoSettings", __config__=_FROM_SIGNATURE)
    if takes_whole_config(target):
        return create_model("AnySettings", __config__=_OPEN)
    return _from_signature(target)


def _forbid_unknown_keys(model: type[BaseModel]) -> type[BaseModel]:
    """Return a subclass that refuses unknown keys, which pydantic by default drops in silence."""
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, __cls_kwargs__={"extra": "forbid"})


def takes_whole_config(target: Callable[..., object]) -> bool:
    """Return whether the constructor wants the settings as one dict, as in `__init__(self, email_config)`."""
    parameters = list(_parameters(target))
    return len(parameters) == 1 and (parameters[0].name == "config" or parameters[0].name.endswith("_config"))


def _parameters(target: Callable[..., object]) -> list[inspect.Parameter]:
    return list(inspect.signature(target).parameters.values())


def _from_signature(target: Callable[..., object]) -> type[BaseModel]:
    constructor = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]  # only looked at
    try:
        hints = typing.get_type_hints(constructor)
    except Exception:  # noqa: BLE001 - annotations are the author's code; without them any value is accepted
        hints = {}
    fields: dict[str, Any] = {}
    is_open = False
    for parameter in _parameters(target):
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            is_open = is_open or parameter.kind is parameter.VAR_KEYWORD
            continue
        kind = hints.get(parameter.name, _PLAIN_TYPES.get(type(parameter.default), Any))
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[_FIELD_PREFIX + parameter.name] = (kind, Field(default, alias=parameter.name))
    return create_model("Settings", __config__=_OPEN if is_open else _FROM_SIGNATURE, **fields)


def check_settings(name: str, target: object, settings: Mapping[str, Any]) -> BaseModel:
    """Return the validated settings of the plugin.

    Raises:
        MissingSettingsError: If nothing is wrong but that required ones are not there.
        ConfigError: For everything else, with one fault for each key.
    """
    with isolated(name, "cannot say what its settings are"):
        model = describe_settings(target)
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        faults = describe_faults(error, model, dict(settings), prefix=("plugins", name, "config"))
        errors = [ConfigError(fault.text, option=".".join(map(str, fault.keys))) for fault in faults]
        missing = tuple(str(details["loc"][-1]) for details in error.errors() if details["type"] == "missing")
        if len(missing) == error.error_count():
            joined = MissingSettingsError(f"Plugin {name!r} needs the settings {', '.join(missing)}.", missing=missing)
            joined.faults = ConfigError.join(errors).faults
            raise joined from error
        raise ConfigError.join(errors) from error


def build_plugin(name: str, target: object, settings: Mapping[str, Any]) -> object:
    """Return an instance made from validated settings.

    Raises:
        ConfigError: If the settings are not accepted.
        PluginError: If the constructor raises.
    """
    config = check_settings(name, target, settings)
    with isolated(name, "cannot be built"):
        if isinstance(target, ModuleType) or not callable(target):
            return target
        if isinstance(target, type) and issubclass(target, Plugin) and target.Config is not None:
            return target.from_config(config)
        if takes_whole_config(target):
            return _build_from_dict(name, target, settings)
        return target(**_given(config))


def _build_from_dict(name: str, target: Callable[..., object], settings: Mapping[str, Any]) -> object:
    if settings:
        return target(dict(settings))
    if _parameters(target)[0].default is inspect.Parameter.empty:
        raise MissingSettingsError(f"Plugin {name!r} needs settings, and there are none.", missing=("config",))
    return target()


def _given(config: BaseModel) -> dict[str, Any]:
    """Return the arguments that the settings give, under the names of the parameters."""
    given = {name.removeprefix(_FIELD_PREFIX): getattr(config, name) for name in config.model_fields_set}
    return given | (config.model_extra or {})
