"""`bz init`: a project that trains as it is."""

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from bz.cli import output
from bz.errors import ConfigError

EXAMPLES: Final = "Example: bz init digits && cd digits && bz train"

_TEMPLATES: Final = Path(__file__).parent / "templates"
_SCHEMA: Final = "bz.schema.json"


def init(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to write; made if it does not exist.")
    ] = Path(),
) -> None:
    """Write a project that trains on handwritten digits.

    It writes bz.json, bz.schema.json, train.py and README.md, and never overwrites a file.
    """
    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(_TEMPLATES.iterdir()) if path.is_file()}
    _refuse_to_overwrite(directory, [*files, _SCHEMA])
    files[_SCHEMA] = _schema()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            with (directory / name).open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
    except OSError as error:
        raise ConfigError(f"Cannot write {error.filename or directory}: {error.strerror}.", path=directory) from error
    place = "here" if directory.resolve() == Path.cwd() else f"in {directory}"
    output.say(f"Wrote {', '.join(sorted(files))} {place}.")
    output.say("Now run: bz train" if place == "here" else f"Now run: cd {directory} && bz train")


def _refuse_to_overwrite(directory: Path, names: list[str]) -> None:
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory} is a file; name a folder.", path=directory)
    in_the_way = sorted(name for name in names if (directory / name).exists() or (directory / name).is_symlink())
    if in_the_way:
        verb = "is" if len(in_the_way) == 1 else "are"
        raise ConfigError(
            f"{', '.join(str(directory / name) for name in in_the_way)} {verb} there already; nothing was written. "
            "Name another folder.",
            path=directory,
        )


def _schema() -> str:
    from bz.cli.inspection import installed_schema

    return json.dumps(installed_schema(), indent=2) + "\n"
