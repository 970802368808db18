"""Switching a plugin on and off leaves the rest of the file as it is."""

import stat
from pathlib import Path

import pytest

from bz.config import set_plugin_enabled
from bz.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edited(text: str, name: str, enabled: bool, file: str = "bz.json") -> str:  # noqa: FBT001 - as the function itself
    path = Path(file)
    path.write_bytes(text.encode())
    set_plugin_enabled(path, name, enabled)
    assert [left.name for left in Path().iterdir()] == [file]
    return path.read_bytes().decode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{}", '{"plugins": {"x": {"enabled": false}}}'),
        ("{ }\n", '{"plugins": {"x": {"enabled": false}}}\n'),
        ('{"a": {}}', None),
        ('{"training": {}}', '{"training": {}, "plugins": {"x": {"enabled": false}}}'),
        ('{"plugins": {}}', '{"plugins": {"x": {"enabled": false}}}'),
        ('{"plugins": {"x": {}}}', '{"plugins": {"x": {"enabled": false}}}'),
        ('{"plugins" : {"x" :{ "enabled":true }}}', '{"plugins" : {"x" :{ "enabled":false }}}'),
        (
            '{\n\t"plugins": {\n\t\t"y": {"enabled": true}\n\t}\n}\n',
            '{\n\t"plugins": {\n\t\t"y": {"enabled": true},\n\t\t"x": {"enabled": false}\n\t}\n}\n',
        ),
        (
            '{\r\n  "plugins": {\r\n    "x": {"config": {"}": "{\\""}}\r\n  }\r\n}',
            '{\r\n  "plugins": {\r\n    "x": {"config": {"}": "{\\""}, "enabled": false}\r\n  }\r\n}',
        ),
        (
            '{\n  "hyperparameters": {"lr": 1e-3},\n  "strict_plugins": true\n}\n',
            (
                '{\n  "hyperparameters": {"lr": 1e-3},\n  "strict_plugins": true,\n'
                '  "plugins": {"x": {"enabled": false}}\n}\n'
            ),
        ),
    ],
)
def test_json_edit_changes_only_the_plugin(before: str, after: str | None) -> None:
    expected = after if after is not None else before[:-1] + ', "plugins": {"x": {"enabled": false}}}'
    assert edited(before, "x", enabled=False) == expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[plugins.x]\nenabled = true\n"),
        (
            "# top\n[training]\nepochs = 3 # three\n",
            "# top\n[training]\nepochs = 3 # three\n\n[plugins.x]\nenabled = true\n",
        ),
        (
            "[plugins.x] # why\nenabled = false # not now\nconfig = {a = 1}\n",
            "[plugins.x] # why\nenabled = true # not now\nconfig = {a = 1}\n",
        ),
        ("plugins = {y = {enabled = false}}\n", "plugins = {y = {enabled = false}, x = { enabled = true}}\n"),
        ("plugins.x.enabled = false\r\n", "plugins.x.enabled = true\r\n"),
        (
            "[plugins.x.config]\na = 1\n",
            "[plugins.x]\nenabled = true\n\n[plugins.x.config]\na = 1\n",
        ),
    ],
)
def test_toml_edit_keeps_comments(before: str, after: str) -> None:
    assert edited(before or "# none\n", "x", True, "bz.toml") == ("" if before else "# none\n\n") + after


def test_pyproject_edit_stays_in_its_table() -> None:
    before = '[project]\nname = "a" # b\n\n[tool.bz.plugins.x]\nenabled = true\n\n[tool.other]\na = 2020-01-01\n'
    after = before.replace("enabled = true", "enabled = false")
    assert edited(before, "x", False, "pyproject.toml") == after


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("bz.json", '{\n  "plugins": {\n    "x": {\n      "enabled": true\n    }\n  }\n}\n'),
        ("bz.toml", "[plugins.x]\nenabled = true\n"),
    ],
)
def test_edit_of_a_file_that_is_not_there_makes_it(file: str, text: str) -> None:
    set_plugin_enabled(Path(file), "x", True)
    assert Path(file).read_text() == text


def test_edit_that_changes_nothing_writes_nothing() -> None:
    path = Path("bz.json")
    path.write_text('{"plugins": {"x": {"enabled": true}}}')
    before = path.stat()
    set_plugin_enabled(path, "x", True)
    assert path.stat().st_ino == before.st_ino


def test_edit_keeps_permissions_and_links() -> None:
    Path("real.json").write_text("{}")
    Path("real.json").chmod(0o600)
    Path("bz.json").symlink_to("real.json")
    set_plugin_enabled(Path("bz.json"), "x", True)
    assert Path("bz.json").is_symlink()
    assert stat.S_IMODE(Path("real.json").stat().st_mode) == 0o600
    assert "enabled" in Path("real.json").read_text()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"plugins": 3}', "bz.json: `plugins` must be an object, got 3."),
        ('{"plugins": {"x": true}}', "bz.json: `plugins.x` must be an object, got true."),
        ("[", "bz.json: line 1, column 2: not JSON: expecting value, got the end of the file."),
    ],
)
def test_edit_of_a_wrong_file_says_why_and_leaves_it(text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        edited(text, "x", enabled=True)
    assert str(caught.value) == fault
    assert Path("bz.json").read_text() == text


def test_edit_in_a_folder_that_is_not_there_says_so() -> None:
    with pytest.raises(ConfigError, match=r"^a/bz\.json: the file cannot be written: No such file or directory\.$"):
        set_plugin_enabled(Path("a/bz.json"), "x", True)
