"""Looks at an installed plugin in a process of its own, so that nothing it does at import can reach bz.

`python -m bz.cli.inspection` is that process: it reads a plugin as JSON from stdin and writes what it found to stdout.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bz.errors import BzError, ConfigError

if TYPE_CHECKING:
    from bz.plugins.discovery import DiscoveredPlugin

TIMEOUT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found out about one plugin.

    Attributes:
        error: Why it cannot be used, in a sentence; None if it can.
        import_seconds: How long its import took, 0 if it did not finish.
        problems: What its author should repair, one sentence each.
        description: First line of its docstring.
        hooks: The hooks it implements, in firing order.
        settings: Its settings: name, type, default (None if required), description.
        schema: JSON schema of its settings, None if there can be none.
        faults: What is wrong in the settings that were handed in, one sentence each.
    """

    error: str | None = None
    import_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    description: str = ""
    hooks: list[str] = field(default_factory=list)
    settings: list[dict[str, Any]] = field(default_factory=list)
    schema: dict[str, Any] | None = None
    faults: list[str] = field(default_factory=list)


def inspect_plugin(
    plugin: "DiscoveredPlugin", settings: Mapping[str, Any] | None = None, timeout_seconds: float = TIMEOUT_SECONDS
) -> Inspection:
    """Import a plugin in another process and return what was found.

    Args:
        plugin: The plugin, from metadata.
        settings: Its settings, to be checked; None to check none.
        timeout_seconds: How long the other process may take.
    """
    request = json.dumps({"plugin": asdict(plugin), "settings": settings})
    # -P keeps modules in the working directory from standing in for those of the plugin.
    command = [sys.executable, "-P", "-m", "bz.cli.inspection"]
    try:
        done = subprocess.run(  # noqa: S603 - runs this very module
            command, input=request.encode(), capture_output=True, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return Inspection(error=f"Plugin {plugin.name!r} takes longer than {timeout_seconds:g} seconds to import.")
    if done.returncode != 0 or not done.stdout:
        return Inspection(error=f"Plugin {plugin.name!r} ends its process when it is imported: {_how(done)}.")
    return Inspection(**json.loads(done.stdout))


def _how(done: subprocess.CompletedProcess[bytes]) -> str:
    last_line = (done.stderr.decode(errors="replace").strip().splitlines() or [""])[-1].rstrip(".")
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return f"{how}, {last_line!r}" if last_line else how


def installed_schema() -> dict[str, Any]:
    """Return the JSON schema of the settings file, with those of every installed plugin that can be imported."""
    from concurrent.futures import ThreadPoolExecutor

    from bz.config import settings_schema
    from bz.plugins.discovery import discover_plugins

    plugins = discover_plugins()
    with ThreadPoolExecutor() as pool:
        inspections = pool.map(inspect_plugin, plugins)
    return settings_schema({plugin.name: found.schema for plugin, found in zip(plugins, inspections, strict=True)})


def _main() -> None:
    """Answer one request; whatever the plugin prints goes to stderr."""
    answer = os.dup(1)
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    found = _inspect(request["plugin"], request["settings"])
    with os.fdopen(answer, "w") as file:
        json.dump(asdict(found), file)
    # Threads that the import started must not keep this process alive.
    os._exit(0)


def _inspect(written: dict[str, Any], settings: Mapping[str, Any] | None) -> Inspection:
    from bz.plugins.discovery import DiscoveredPlugin
    from bz.plugins.guard import isolated

    name = written["name"]
    started = time.perf_counter()
    import_seconds = 0.0
    try:
        with isolated(name, "cannot be imported"):
            loaded = DiscoveredPlugin(**written).load()
        import_seconds = time.perf_counter() - started
        with isolated(name, "cannot be used"):
            return _describe(loaded, name, settings, import_seconds)
    except BzError as error:
        return Inspection(error=str(error), import_seconds=import_seconds)


def _describe(loaded: Any, name: str, settings: Mapping[str, Any] | None, import_seconds: float) -> Inspection:
    from bz.hookspecs import LIFECYCLE_HOOKS, STEP_HOOKS, WEIGHT_HOOKS
    from bz.plugins.registration import check_plugin, hook_methods
    from bz.plugins.settings import describe_settings

    # An instance without `__init__`, which may make folders or open files.
    instance = object.__new__(loaded) if isinstance(loaded, type) else loaded
    check_plugin(instance, name)
    implemented = hook_methods(instance)
    model = describe_settings(loaded)
    return Inspection(
        import_seconds=import_seconds,
        problems=list(_problems(instance, model, implemented)),
        description=_first_line(loaded),
        hooks=[hook for hook in (*LIFECYCLE_HOOKS, *STEP_HOOKS, *WEIGHT_HOOKS) if hook in implemented],
        settings=list(_rows(model)),
        schema=_schema(model),
        faults=[] if settings is None else list(_faults(loaded, name, settings)),
    )


def _schema(model: Any) -> dict[str, Any] | None:
    """Return the JSON schema of the settings, or None if they take objects that JSON has no word for."""
    from pydantic.errors import PydanticInvalidForJsonSchema

    try:
        schema: dict[str, Any] = model.model_json_schema()
    except PydanticInvalidForJsonSchema:
        return None
    return schema


def _problems(instance: Any, model: Any, implemented: Iterable[str]) -> Iterator[str]:
    from bz.plugins.registration import misspelt_hooks

    for written, hook in misspelt_hooks(instance).items():
        yield f"Method {written!r} is no hook; did you mean {hook!r}?"
    if not implemented:
        yield "It implements no hook, so it does nothing."
    if not _first_line(instance):
        yield "It has no docstring; `bz plugins show` has nothing to say about it."
    for name, info in model.model_fields.items():
        if not info.description:
            yield f"Its setting {info.alias or name!r} has no description; write a docstring under it."


def _first_line(thing: Any) -> str:
    kind = thing if isinstance(thing, type) or hasattr(thing, "__file__") else type(thing)
    return (vars(kind).get("__doc__") or "").strip().partition("\n")[0]


def _rows(model: Any) -> Iterator[dict[str, Any]]:
    from inspect import formatannotation

    for name, info in model.model_fields.items():
        default = None if info.is_required() else repr(info.get_default(call_default_factory=True))
        yield {
            "name": info.alias or name,
            "type": formatannotation(info.annotation).replace("pydantic.types.", ""),
            "default": default,
            "description": " ".join((info.description or "").split()),
        }


def _faults(loaded: Any, name: str, settings: Mapping[str, Any]) -> Iterator[str]:
    from bz.plugins.settings import check_settings

    try:
        check_settings(name, loaded, settings)
    except ConfigError as error:
        yield from error.faults


if __name__ == "__main__":
    _main()
