"""Where the settings file is found, and what is refused before any key is looked at."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bz.config import find_settings_file, read_settings_file
from bz.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(content: bytes | str, name: str = "bz.json") -> str:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        read_settings_file(Path(name))
    assert caught.value.path == Path(name)
    assert caught.value.faults == (str(caught.value),)
    return str(caught.value)


def test_find_without_any_file_returns_none(folder: Path) -> None:
    assert find_settings_file(None, folder, {}) is None


def test_find_takes_the_option_then_the_variable_then_the_folder(folder: Path) -> None:
    for name in ("a.json", "b.json", "bz.json", "bz.toml"):
        Path(name).write_text("{}")
    Path("pyproject.toml").write_text("[tool.bz]")
    environ = {"BZ_CONFIG": "b.json"}
    assert find_settings_file(Path("a.json"), folder, environ) == Path("a.json")
    assert find_settings_file(None, folder, environ) == Path("b.json")
    assert find_settings_file(None, folder, {"BZ_CONFIG": ""}) == folder / "bz.json"
    Path("bz.json").unlink()
    assert find_settings_file(None, folder, {}) == folder / "bz.toml"
    Path("bz.toml").unlink()
    assert find_settings_file(None, folder, {}) == folder / "pyproject.toml"


def test_find_with_a_pyproject_of_another_tool_returns_none(folder: Path) -> None:
    Path("pyproject.toml").write_text("[tool.other]\nsince = 2020-01-01\n")
    assert find_settings_file(None, folder, {}) is None


def test_find_with_a_missing_explicit_file_names_the_close_one(folder: Path) -> None:
    Path("settings.json").write_text("{}")
    with pytest.raises(ConfigError) as caught:
        find_settings_file(Path("setings.json"), folder, {})
    assert str(caught.value) == "`--config`: there is no file \"setings.json\". Did you mean 'settings.json'?"


def test_find_with_a_missing_file_in_the_variable_names_the_variable(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find_settings_file(None, folder, {"BZ_CONFIG": "x.json"})
    assert str(caught.value) == '`BZ_CONFIG`: there is no file "x.json".'


def test_find_with_a_name_that_is_too_long_says_so(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r'^`--config`: "aaa.*: File name too long\.$'):
        find_settings_file(Path("a" * 300), folder, {})


def test_read_json_returns_what_is_written(folder: Path) -> None:
    Path("bz.json").write_text('{"training": {"epochs": 3}, "hyperparameters": {"lr": 1e-3, "name": "ü"}}')
    assert read_settings_file(Path("bz.json")) == {
        "training": {"epochs": 3},
        "hyperparameters": {"lr": 0.001, "name": "ü"},
    }


def test_read_toml_returns_the_same_shape(folder: Path) -> None:
    Path("bz.toml").write_text("[training]\nepochs = 3\n[plugins.console_out]\nenabled = true\n")
    Path("pyproject.toml").write_text("[project]\nname = 'x'\n[tool.bz.training]\nepochs = 3\n")
    assert read_settings_file(Path("bz.toml")) == {
        "training": {"epochs": 3},
        "plugins": {"console_out": {"enabled": True}},
    }
    assert read_settings_file(Path("pyproject.toml")) == {"training": {"epochs": 3}}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"a": 1,}', "line 1, column 8: not JSON: nothing follows this comma; remove it."),
        ('{"a": [1, 2,\n]}', "line 1, column 12: not JSON: nothing follows this comma; remove it."),
        ('{"a": 1, "b": }', 'line 1, column 15: not JSON: expecting value, got "}".'),
        ('{\n  "a": 1\n  "b": 2\n}', "line 3, column 3: not JSON: expecting ',' delimiter, got \"\\\"\"."),
        ("{'a': 1}", ('line 1, column 2: not JSON: expecting property name enclosed in double quotes, got "\'"; '
         "JSON takes double quotes.")),
        ('{"a": True}', 'line 1, column 7: not JSON: expecting value, got "T"; JSON writes true, false and null.'),
        ('{"a": 1 // b\n}', ("line 1, column 9: not JSON: expecting ',' delimiter, got \"/\"; "
         "JSON has no comments; bz.toml may have them.")),
        ('{"a"', "line 1, column 5: not JSON: expecting ':' delimiter, got the end of the file."),
        ("{} {}", 'line 1, column 4: not JSON: extra data, got "{".'),
        ('{"x": {"a": 1, "a": 2}}', 'the key "a" stands twice in the same object.'),
        ('{"x": {"lr": NaN}}', "`x.lr` must be a finite number, got nan."),
        ('{"x": [1, -Infinity]}', "`x[1]` must be a finite number, got -inf."),
        ('{"x": 1e999}', "`x` must be a finite number, got inf."),
        ('{"x": 18446744073709551616}', ("the number 184467440737... has 20 digits; "
         "whole numbers must fit into 64 bits.")),
        ('{"x": 9223372036854775808}', "`x` must fit into 64 bits, as a whole number."),
        ('{"x": "\\ud800"}', "`x` holds half of a surrogate pair, which is no text."),
        ("[1]", 'settings must be an object such as {"training": {"epochs": 3}}, got [1].'),
        ("null", 'settings must be an object such as {"training": {"epochs": 3}}, got null.'),
        ("", "the file is empty; the smallest settings file is {}."),
        (" \n", "the file is empty; the smallest settings file is {}."),
        (b"\xef\xbb\xbf{}", "the file begins with a byte order mark; save it as UTF-8 without one."),
        ("{}".encode("utf-16"), "the file begins with a byte order mark; save it as UTF-8 without one."),
        (b'{\n"a": "\xe4"}', "line 2: byte 0xe4 is not UTF-8."),
        (b'{\n"a": "\x00"}', "line 2: there is a NUL character; is this a text file?"),
        ('{"a":' * 60 + "1" + "}" * 60, "the values are nested deeper than 50 levels."),
        ("[" * 100_000, "the values are nested deeper than 50 levels."),
        (b" " * 1_048_577, "the file has 1,048,577 bytes; a settings file may have up to 1 MiB."),
    ],
)  # fmt: skip
def test_read_bad_json_says_what_and_where(content: bytes | str, fault: str) -> None:
    assert refusal(content) == f"bz.json: {fault}"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[training]\nepochs = \n", "line 2, column 10: not TOML: invalid value."),
        ("a = [", "at the end: not TOML: invalid value."),
        ("a = 1\na = 2\n", "line 2, column 6: not TOML: cannot overwrite a value."),
        ("[x]\nday = 2020-01-01\n", '`x.day` is a date or time; write it as text, "2020-01-01".'),
        ("[x]\nlr = nan\n", "`x.lr` must be a finite number, got nan."),
        ("x = 0xffffffffffffffff\n", "`x` must fit into 64 bits, as a whole number."),
        ("x = " + "9" * 5000, "there is a number with too many digits or a date that does not exist."),
        ("x = " + "[" * 100_000, "the values are nested deeper than 50 levels."),
    ],
)
def test_read_bad_toml_says_what_and_where(content: str, fault: str) -> None:
    assert refusal(content, "bz.toml") == f"bz.toml: {fault}"


def test_read_another_suffix_says_which_are_accepted() -> None:
    assert refusal("training: 1", "bz.yaml") == (
        'bz.yaml: a name that ends in ".yaml" is not accepted; settings are .json or .toml.'
    )


def test_read_pyproject_without_a_table_says_so() -> None:
    assert refusal("[tool]\n", "pyproject.toml") == "pyproject.toml: there is no [tool.bz] table."
    assert refusal("tool.bz = 3\n", "pyproject.toml") == "pyproject.toml: `tool.bz` must be a table, got 3."


def test_read_a_folder_says_so() -> None:
    Path("bz.json").mkdir()
    with pytest.raises(ConfigError, match=r"^bz\.json: this is a folder; a settings file is JSON or TOML\.$"):
        read_settings_file(Path("bz.json"))


def test_read_a_missing_file_says_so() -> None:
    with pytest.raises(ConfigError, match=r"^bz\.json: the file cannot be read: No such file or directory\.$"):
        read_settings_file(Path("bz.json"))


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read every file")
def test_read_an_unreadable_file_says_so() -> None:
    Path("bz.json").write_text("{}")
    Path("bz.json").chmod(0)
    with pytest.raises(ConfigError, match=r"^bz\.json: the file cannot be read: Permission denied\.$"):
        read_settings_file(Path("bz.json"))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero")
def test_read_an_endless_file_stops_at_the_limit() -> None:
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        read_settings_file(Path("/dev/zero"))


def test_read_a_sparse_gigabyte_is_refused_by_its_size() -> None:
    with Path("bz.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ConfigError, match=r"^bz\.json: the file has 1,073,741,824 bytes"):
        read_settings_file(Path("bz.json"))


def test_importing_files_imports_neither_pydantic_nor_torch() -> None:
    code = "import sys, bz.config.files; print({'pydantic', 'torch'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
