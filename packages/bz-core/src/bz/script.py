"""Running the user's `train.py` and taking its `TrainingSpec`."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import re
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from bz.errors import ScriptError, suggestion
from bz.spec import TrainingSpec

_REQUIRED = ("model", "loss_fn", "optimizer", "training_loader")
_OPTIONAL = (
    "validation_loader",
    "metrics",
    "lr_scheduler",
    "plugins",
    "training_step",
    "validation_step",
    "manual_optimization",
)
_STEPS = ("training_step", "validation_step")
# Names that other projects give to what a script has to define here.
_SYNONYMS = {
    "criterion": "loss_fn",
    "loss": "loss_fn",
    "net": "model",
    "network": "model",
    "dataloader": "training_loader",
    "data_loader": "training_loader",
    "loader": "training_loader",
}
_MAX_REASON_LENGTH = 200


@dataclass(frozen=True, slots=True)
class LoadedScript:
    """What a script gave.

    Attributes:
        spec: The live objects; `hyperparameters` are those of the script, changed by the settings.
        module: The script as a module; its functions named like hooks make it a plugin.
        notices: One sentence for each setting that has no effect on this script.
    """

    spec: TrainingSpec
    module: ModuleType
    notices: tuple[str, ...] = ()


def load_script(path: Path, hyperparameters: Mapping[str, Any]) -> LoadedScript:
    """Run the script and return what it defines.

    Its folder goes to the front of `sys.path`, and its module into `sys.modules` under the name of the file, so
    that its classes can be pickled for the workers of a `DataLoader`. `__name__` is not `"__main__"`.

    Args:
        path: The script, with `build(hyperparameters)` or the module-level names.
        hyperparameters: Those of the settings; they win over those of the script.

    Raises:
        ScriptError: It is missing, fails or defines neither; the user's own exception is its `__cause__`.
    """
    _check_file(path)
    module = _run(path)
    names = {name: value for name, value in vars(module).items() if not isinstance(value, ModuleType)}
    own = _mapping(names.get("hyperparameters"), path)
    merged = {**own, **hyperparameters}
    if "build" not in names:
        spec = _collect(names, path, merged)
        return LoadedScript(spec, module, _ineffective(path, own, hyperparameters))
    spec = _call_build(names["build"], path, merged)
    spec.hyperparameters = {**merged, **_mapping(spec.hyperparameters, path)}
    for name in _STEPS:
        if getattr(spec, name) is None and _is_step(names.get(name)):
            setattr(spec, name, names[name])
    return LoadedScript(spec, module)


def user_traceback(error: BaseException, script_path: Path) -> str:
    """Return the traceback of `error`, and of its causes, without the frames of bz and of the import system.

    It begins with the first frame in the folder of the script; if none is there, with the first that is not bz's.
    """
    report = traceback.TracebackException.from_exception(error)
    for part in _chain(report):
        frames = [frame for frame in part.stack if not _is_internal(frame.filename)]
        first = next((i for i, frame in enumerate(frames) if _is_users(frame.filename, script_path)), 0)
        part.stack = traceback.StackSummary.from_list(frames[first:])
    return "".join(report.format())


def _chain(report: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Yield the report of an error and those of all errors behind it."""
    yield report
    for other in (report.__cause__, report.__context__, *(report.exceptions or ())):
        if other is not None:
            yield from _chain(other)


def _is_internal(filename: str) -> bool:
    is_import_system = filename.startswith("<frozen importlib") or Path(filename).parent.name == "importlib"
    return is_import_system or Path(filename).is_relative_to(Path(__file__).parent)


def _is_users(filename: str, script_path: Path) -> bool:
    file = Path(filename)
    return file.is_relative_to(script_path.resolve().parent) and "site-packages" not in file.parts


def _check_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise ScriptError(f"There is no script {str(path)!r}.{_neighbours(path)}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ScriptError(f"The script {str(path)!r} cannot be read: {reason}.") from error
    if stat.S_ISDIR(mode):
        raise ScriptError(f"{path} is a folder; give the script in it, such as {path / 'train.py'}.")
    if path.suffix != ".py":
        raise ScriptError(f"{path} is no Python script; its name must end in .py.")


def _neighbours(path: Path) -> str:
    names = sorted(file.name for file in path.parent.glob("*.py"))
    if not names:
        return " Run `bz init` for one to start from."
    return suggestion(path.name, names) or f" In the same folder: {', '.join(names[:5])}."


class _ScriptLoader(SourceFileLoader):
    """Leaves no `__pycache__` beside the user's script."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - named by the import system
        return self.source_to_code(self.get_data(self.path), self.path)


def _run(path: Path) -> ModuleType:
    file = path.resolve()
    loader = _ScriptLoader(_module_name(file), str(file))
    module = importlib.util.module_from_spec(ModuleSpec(loader.name, loader, origin=str(file)))
    module.__file__ = str(file)
    if str(file.parent) not in sys.path[:1]:
        sys.path.insert(0, str(file.parent))
    sys.modules[loader.name] = module
    try:
        with _arguments(path):
            loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[loader.name]
        raise _failure(error, path, path.name) from error
    return module


def _module_name(file: Path) -> str:
    """Return the name under which a worker process finds the script, or another if that name is taken."""
    taken = sys.modules.get(file.stem)
    is_free = taken is None or isinstance(getattr(taken.__spec__, "loader", None), _ScriptLoader)
    if is_free and "." not in file.stem and file.stem not in sys.stdlib_module_names:
        return file.stem
    return "bz_script_" + re.sub(r"\W", "_", file.stem)


@contextmanager
def _arguments(path: Path) -> Iterator[None]:
    """Hide the arguments of bz from a script that parses its own."""
    saved = sys.argv
    sys.argv = [str(path)]
    try:
        yield
    finally:
        sys.argv = saved


def _failure(error: BaseException, path: Path, what: str) -> ScriptError:
    """Return the one sentence on an error in the user's code: where it was, and its first line."""
    if isinstance(error, SystemExit):
        return ScriptError(f"{what} called sys.exit({error.code!r}); it must return to bz.")
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return ScriptError(f"{Path(error.filename).name}, line {error.lineno}: {error.msg}.")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(f.filename, path)]
    where = f" at {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    reason = " ".join(str(error).split())[:_MAX_REASON_LENGTH].rstrip(".")
    return ScriptError(f"{what} raised {type(error).__name__}{where}{': ' if reason else ''}{reason}.")


def _is_step(value: object) -> bool:
    """Whether this is a step of the script; one that is marked as a hook, or takes less, is called as a plugin's."""
    is_marked = hasattr(value, "bz_impl")  # what `hookimpl` leaves on a function
    return (
        inspect.isfunction(value) and not is_marked and [*inspect.signature(value).parameters] == ["context", "batch"]
    )


def _mapping(value: object, path: Path) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ScriptError(f"{path.name}: `hyperparameters` must be a dict, got {type(value).__name__}.")
    return value


def _call_build(build: object, path: Path, hyperparameters: dict[str, Any]) -> TrainingSpec:
    if not callable(build):
        raise ScriptError(f"{path.name}: `build` must be a function build(hyperparameters), got {build!r:.80}.")
    arguments = _arguments_for(build, path, hyperparameters)
    try:
        spec = build(*arguments)
    except (Exception, SystemExit) as error:
        raise _failure(error, path, f"build() in {path.name}") from error
    if not isinstance(spec, TrainingSpec):
        raise ScriptError(f"build() in {path.name} must return a bz.TrainingSpec, got {type(spec).__name__}.")
    return spec


def _arguments_for(build: Callable[..., object], path: Path, hyperparameters: dict[str, Any]) -> tuple[Any, ...]:
    """Return what to call `build` with: the hyperparameters, or nothing if it takes nothing."""
    signature = inspect.signature(build)
    parameters = list(signature.parameters.values())
    if not parameters:
        return ()
    first = parameters[0]
    takes_values = first.default not in (first.empty, None) and not isinstance(first.default, Mapping)
    try:
        signature.bind(hyperparameters)
    except TypeError:
        takes_values = True
    if takes_values:
        raise ScriptError(
            f"{path.name}: build{signature} must take the hyperparameters as its one parameter, a dict; "
            "write it as build(hyperparameters)."
        )
    return (hyperparameters,)


def _collect(names: Mapping[str, Any], path: Path, hyperparameters: dict[str, Any]) -> TrainingSpec:
    """Return the spec of a script that has its objects at module level."""
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise ScriptError(
            f"{path.name} must define build(hyperparameters), or model, loss_fn, optimizer and training_loader; "
            f"it has no {' and no '.join(missing)}.{_look_alikes(names, missing)}"
        )
    optional = {name: names[name] for name in _OPTIONAL if names.get(name) is not None}
    if not isinstance(optional.get("plugins", ()), list | tuple):
        raise ScriptError(f"{path.name}: `plugins` must be a list, got {type(optional['plugins']).__name__}.")
    return TrainingSpec(**{name: names[name] for name in _REQUIRED}, **optional, hyperparameters=hyperparameters)


def _look_alikes(names: Mapping[str, Any], missing: Sequence[str]) -> str:
    """Return a question for each name of the script that was probably meant as one of the missing."""
    questions = ""
    for name in names:
        close = [_SYNONYMS[name]] if name in _SYNONYMS else difflib.get_close_matches(name, ["build", *missing], n=1)
        if close and close[0] in ["build", *missing] and name not in (*_REQUIRED, *_OPTIONAL):
            questions += f" Is `{name}` meant as `{close[0]}`?"
    return questions


def _ineffective(path: Path, own: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a notice on the settings that a script without `build` cannot have read."""
    changed = [name for name, value in wanted.items() if name not in own or own[name] != value]
    if not changed:
        return ()
    keys = ", ".join(f"`hyperparameters.{name}`" for name in changed)
    notice = (
        f"{path.name} builds its objects at module level, so {keys} of the settings cannot change them; "
        "define build(hyperparameters) to use them."
    )
    return (notice,)
