"""`bz email test` and `bz email flush`, as a user calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mail_runs import train
from mail_servers import PASSWORD, RECIPIENTS, MailDrop


def bz(folder: Path, *arguments: str) -> tuple[int, str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BZ_")}
    process = subprocess.run(
        [sys.executable, "-m", "bz", "email", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in process.stderr
    assert PASSWORD not in process.stdout + process.stderr
    return process.returncode, process.stdout, process.stderr


@pytest.fixture
def project(tmp_path: Path, drop: MailDrop) -> Path:
    write_settings(tmp_path, drop.settings)
    return tmp_path


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    document = {"plugins": {"email_plugin": {"config": settings}}}
    (folder / "bz.json").write_text(json.dumps(document), encoding="utf-8")


def test_test_mail_is_sent(project: Path, drop: MailDrop) -> None:
    assert bz(project, "test") == (0, f"Sent a test mail to {', '.join(RECIPIENTS)}.\n", "")
    assert drop.subjects == ["Test of bz-plugin-email"]


def test_test_mail_says_who_did_not_get_it(project: Path, drop: MailDrop) -> None:
    drop.handler.recipients = {RECIPIENTS[1]: "550 5.1.1 no such user"}
    code, output, errors = bz(project, "test")
    assert (code, output) == (1, f"Sent a test mail to {RECIPIENTS[0]}, {RECIPIENTS[2]}.\n")
    assert errors == f"The server did not take it for {RECIPIENTS[1]}: 550 5.1.1 no such user.\n"


def test_test_mail_says_what_is_wrong_with_the_server(project: Path) -> None:
    code, output, errors = bz(project, "test", "--set", "plugins.email_plugin.config.smtp_port=1")
    assert (code, output) == (1, "")
    assert errors == "No test mail was sent: localhost:1 cannot be reached (Connection refused).\n"


def test_settings_are_checked_with_one_sentence(project: Path) -> None:
    code, _, errors = bz(project, "test", "--set", "plugins.email_plugin.config.security=none")
    assert code == 2
    assert errors.startswith("bz.json: `plugins.email_plugin.config.security` must be 'starttls' or 'tls' with a ")
    assert len(errors.splitlines()) == 1


def test_settings_that_are_not_there_are_missed_with_one_sentence(tmp_path: Path) -> None:
    code, _, errors = bz(tmp_path, "test")
    assert code == 2
    assert errors.startswith("There are no mail settings: write them under `plugins.email.config` in ")


def test_flush_sends_what_waits_in_all_runs_and_only_once(project: Path, drop: MailDrop) -> None:
    for name in ("one", "two"):
        train(drop.settings | {"smtp_port": 1}, run_dir=project / "runs" / name, epochs=1)
    sent = f"Sent 'Training Complete - digits' to {', '.join(RECIPIENTS)}.\n"
    assert bz(project, "flush") == (0, sent * 2, "")
    assert bz(project, "flush") == (0, "No mail waits.\n", "")
    assert drop.subjects == ["Training Complete - digits"] * 2


def test_flush_of_one_run_leaves_the_others(project: Path, drop: MailDrop) -> None:
    for name in ("one", "two"):
        train(drop.settings | {"smtp_port": 1}, run_dir=project / "runs" / name, epochs=1)
    assert bz(project, "flush", "runs/two")[0] == 0
    assert len(list((project / "runs" / "one" / "outbox").glob("*.eml"))) == 1
    assert len(drop.mails) == 1


def test_flush_says_what_still_waits_and_where(project: Path, drop: MailDrop) -> None:
    train(drop.settings | {"smtp_port": 1}, run_dir=project / "runs" / "one", epochs=1)
    drop.handler.data = "451 4.3.0 try again later"
    code, output, errors = bz(project, "flush")
    assert (code, output) == (1, "")
    assert errors.startswith("'Training Complete - digits' waits in runs/one/outbox/")
    assert errors.endswith(f".eml for {', '.join(RECIPIENTS)} (451 4.3.0 try again later)\n")


def test_flush_says_what_was_refused_for_good(project: Path, drop: MailDrop) -> None:
    train(drop.settings | {"smtp_port": 1}, run_dir=project / "runs" / "one", epochs=1)
    drop.handler.data = "550 5.7.1 no"
    code, _, errors = bz(project, "flush")
    assert code == 1
    assert "(550 5.7.1 no)" in errors
    assert str(Path("runs/one/outbox/failed")) in errors


def test_flush_of_a_folder_that_is_not_there_is_refused(project: Path) -> None:
    assert bz(project, "flush", "runs/none") == (2, "", "There is no run folder runs/none.\n")


def test_help_lists_the_commands(tmp_path: Path) -> None:
    code, output, _ = bz(tmp_path)
    assert code == 0
    assert "test" in output
    assert "flush" in output
