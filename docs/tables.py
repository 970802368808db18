"""Writes the tables of the documentation that come from the code.

    python docs/tables.py

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; what is between them is replaced. Another folder
with documents may be given as the argument. `tests/test_docs.py` fails while a table differs from the code.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import tempfile
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from bz.config.models import Config, PluginSettings, TrainingSettings
from bz.context import TrainingContext
from bz.hookspecs import LIFECYCLE_HOOKS, LifecycleHooks, StepHooks, WeightHooks
from bz.testing import RecordingPlugin, tiny_spec, train

FOLDER: Final = Path(__file__).parent
WAITS: Final = "; waits for the device"
_BLOCK: Final = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(document: str) -> str:
    """Return the document with every table as the code has it now."""
    return _BLOCK.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}{match[3]}", document)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; a `|` in a cell is escaped."""
    lines = [header, ["---"] * len(header), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def hooks(specs: type) -> str:
    """Return the hooks in firing order, with what their docstrings say."""
    rows = []
    for name, function in vars(specs).items():
        if not name.startswith("_"):
            first, _, rest = (inspect.getdoc(function) or "").partition("\n")
            rows.append([f"`{name}`", first, " ".join(rest.split())])
    return markdown(["Hook", "When", "More"], rows)


def moments() -> str:
    """Return what each hook finds, as seen in a run that is saved inside an epoch and resumed from there."""
    seen: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    with tempfile.TemporaryDirectory() as run_dir:
        recorder = RecordingPlugin(lambda hook, context: _observe(seen[hook], context))
        train(tiny_spec(), recorder, run_dir=run_dir, checkpoint_interval="2 steps", epochs=2)
        inside_epoch = next(Path(run_dir, "state").glob("epoch_2_step_4.pth"))
        resumed = RecordingPlugin(
            lambda hook, context: _observe(seen[hook], context) if hook == "load_checkpoint" else None
        )
        train(tiny_spec(), resumed, resume=inside_epoch, epochs=2)
    columns = ["Model", "Gradients", "`batch`", "`outputs`", "Training values", "Validation values"]
    rows = [[f"`{hook}`", *(_in_words(seen[hook][column]) for column in columns)] for hook in LIFECYCLE_HOOKS]
    return markdown(["Hook", *columns], rows)


def _observe(seen: dict[str, set[str]], context: TrainingContext) -> None:
    seen["Model"].add("train" if context.model.training else "eval")
    seen["Gradients"].add("on" if torch.is_grad_enabled() else "off")
    seen["`batch`"].add("no" if context.batch is None else "yes")
    seen["`outputs`"].add("no" if context.outputs is None else "yes")
    seen["Training values"].add(_share(context.training_batch_count, context.training_batches))
    seen["Validation values"].add(_share(context.validation_batch_count, context.validation_batches))


def _share(count: int, planned: int | None) -> str:
    return "none" if count == 0 else "all" if count == planned else "so far"


def _in_words(values: set[str]) -> str:
    return values.copy().pop() if len(values) == 1 else "so far"


def context_values() -> str:
    """Return everything that can be read from a context, and whether reading waits for the device."""
    rows = []
    for name, kind, text in [*_attributes(TrainingContext), *_properties(TrainingContext)]:
        rows.append([f"`{name}`", f"`{kind}`", text.replace(WAITS, ""), "yes" if WAITS in text else "no"])
    return markdown(["Name", "Type", "Meaning", "Waits"], sorted(rows, key=lambda row: row[0].strip("`")))


def _properties(kind: type) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and docstring of each property."""
    for name, member in vars(kind).items():
        if isinstance(member, property):
            yield name, inspect.get_annotations(member.fget)["return"], _first_paragraph(member)  # type: ignore[arg-type]


def _attributes(kind: Any) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and description of each public attribute that the constructor sets."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind.__init__)))
    for node in ast.walk(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute):
            yield node.target.attr, ast.unparse(node.annotation), ATTRIBUTES[node.target.attr]


ATTRIBUTES: Final = {
    "extra": "Room for plugins and steps to hand things to one another; never saved.",
    "hyperparameters": "What the run was made with.",
}


def context_calls() -> str:
    """Return what can be called on a context."""
    rows = []
    for name, member in vars(TrainingContext).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            signature = inspect.signature(member)
            parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "self"]
            call = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(signature.replace(parameters=parameters)))
            rows.append([f"`{name}{call}`", _first_paragraph(member)])
    return markdown(["Call", "What it does"], rows)


def _first_paragraph(member: object) -> str:
    return " ".join((inspect.getdoc(member) or "").split("\n\n")[0].split())


def settings() -> str:
    """Return every setting of the core."""
    sections: list[tuple[str, Any]] = [("", Config), ("training.", TrainingSettings), ("plugins.NAME.", PluginSettings)]
    rows = []
    for prefix, model in sections:
        for name, schema in model.model_json_schema()["properties"].items():
            is_section = "$ref" in schema
            default = "" if is_section else f"`{json.dumps(schema.get('default', {}))}`"
            kind = "section" if is_section else kind_in_words(schema)
            rows.append([f"`{prefix}{name}`", kind, default, " ".join(schema["description"].split())])
    return markdown(["Setting", "Type", "Default", "Meaning"], rows)


def kind_in_words(schema: Mapping[str, Any]) -> str:
    """Return what values a JSON schema accepts, in words for people who write JSON."""
    match schema:
        case {"examples": ["5 epochs", *_]}:
            words = "[interval](#intervals)"
        case {"examples": ["30 s", *_]}:
            words = "[time](#intervals)"
        case {"anyOf": kinds}:
            words = " or ".join(kind_in_words(kind) for kind in kinds)
        case {"enum": values}:
            words = " or ".join(f"`{json.dumps(value)}`" for value in values)
        case {"const": value}:
            words = f"`{json.dumps(value)}`"
        case {"type": "integer", "minimum": least}:
            words = f"whole number, at least {least}"
        case _:
            words = _KINDS[schema.get("type", "object")]
    return words


_KINDS: Final = {
    "string": "text",
    "boolean": "`true` or `false`",
    "null": "`null`",
    "number": "number above 0",
    "object": "object",
}

TABLES: Final[dict[str, Callable[[], str]]] = {
    "hooks": lambda: hooks(LifecycleHooks),
    "steps": lambda: hooks(StepHooks),
    "weights": lambda: hooks(WeightHooks),
    "moments": moments,
    "context_values": context_values,
    "context_calls": context_calls,
    "settings": settings,
}


def main(folder: Path) -> None:
    """Bring every document of a folder up to date."""
    for path in sorted(folder.glob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = fill(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"{path.name}: tables written")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
