"""The README says what is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from bz_plugin_email import EmailNotificationPlugin
from bz_plugin_email.config import EmailNotificationConfig, read_settings

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SPECIAL = {True: "true", False: "false", None: "none"}


def test_settings_are_documented_as_they_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| (.*) \|$", README, re.MULTILINE)
    described = []
    for name, field in EmailNotificationConfig.model_fields.items():
        is_special = isinstance(field.default, bool) or field.default is None
        shown = SPECIAL[field.default] if is_special else str(field.default)
        described.append((name, "required" if field.is_required() else shown, field.description))
    assert rows == described


def test_hooks_are_documented_as_they_are() -> None:
    hooks = {name for name in vars(EmailNotificationPlugin) if re.match(r"(start|end|save)_", name)}
    section = README.partition("## Hooks used")[2].partition("## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == hooks


def test_example_settings_are_accepted() -> None:
    [block] = re.findall(r"^```json\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    settings = read_settings(json.loads(block)["plugins"]["email_plugin"]["config"])
    assert settings.smtp_server == "smtp.gmail.com"
    assert settings.to_email == ["recipient@example.com", "another@example.com"]
    assert settings.when == "validation_accuracy > 0.97"


def test_example_script_runs() -> None:
    [block] = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    code = f"{block}\nprint(*trainer.plugins.names)"
    finished = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert finished.stdout == "email\n"


def test_import_loads_neither_torch_nor_matplotlib() -> None:
    code = "import sys, bz_plugin_email; print({'torch', 'matplotlib'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "set()\n"
