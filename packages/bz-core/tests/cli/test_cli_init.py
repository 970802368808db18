from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema  # type: ignore[import-untyped] # its types are a package of their own

if TYPE_CHECKING:
    from typer.testing import Result


def test_init_writes_a_project(bz: Callable[..., Result]) -> None:
    result = bz("init", "digits")
    assert result.stdout == (
        "Wrote README.md, bz.json, bz.schema.json, train.py in digits.\nNow run: cd digits && bz train\n"
    )
    settings = json.loads(Path("digits/bz.json").read_text())
    schema = json.loads(Path("digits/bz.schema.json").read_text())
    assert settings["$schema"] == "bz.schema.json"
    jsonschema.Draft202012Validator(schema).validate(settings)


def test_init_without_a_folder_writes_here(bz: Callable[..., Result]) -> None:
    assert bz("init").stdout.endswith("train.py here.\nNow run: bz train\n")
    assert Path("train.py").exists()


def test_init_never_overwrites_and_names_every_file_in_the_way(bz: Callable[..., Result]) -> None:
    Path("train.py").write_text("mine")
    Path("bz.schema.json").symlink_to("nowhere")
    result = bz("init")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == ("bz.schema.json, train.py are there already; nothing was written. Name another folder.\n")
    assert sorted(path.name for path in Path().iterdir()) == ["bz.schema.json", "train.py"]
    assert Path("train.py").read_text() == "mine"


def test_init_into_a_file_or_a_place_that_cannot_be_written_is_one_sentence(bz: Callable[..., Result]) -> None:
    Path("file").write_text("")
    assert bz("init", "file").stderr == "file is a file; name a folder.\n"
    result = bz("init", "file/below")
    assert (result.exit_code, result.stderr) == (2, "Cannot write file/below: Not a directory.\n")
