"""The password is found nowhere."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from mail_runs import train
from mail_servers import PASSWORD, USERNAME, Authority, MailDrop, keep_silent, mail_drop, raw_server, secret_forms

from bz.errors import ConfigError
from bz_plugin_email import EmailNotificationPlugin
from bz_plugin_email.config import read_settings
from bz_plugin_email.smtp import Deadline, DeliveryError, MailServer

SCRIPT = """
import torch
from torch.utils.data import DataLoader, TensorDataset

def build(hyperparameters):
    from bz import TrainingSpec
    model = torch.nn.Linear(4, 2)
    data = TensorDataset(torch.randn(16, 4), torch.randint(2, (16,)))
    def step(context, batch):
        if {fails}:
            raise ValueError("the user's error with {password} in it")
        return torch.nn.functional.cross_entropy(context.model(batch[0]), batch[1])
    return TrainingSpec(model, torch.optim.SGD(model.parameters(), lr=0.1), None, DataLoader(data), training_step=step)
"""


def assert_clean(content: bytes, where: object) -> None:
    for form in secret_forms():
        assert form not in content, f"{form!r} in {where}"


@pytest.mark.parametrize("ends", ["sent", "waiting", "failed", "wrong password"])
def test_password_is_in_no_file_output_or_mail(drop: MailDrop, tmp_path: Path, ends: str) -> None:
    settings = drop.settings | {"password": "${CANARY}", "every_epochs": 1}
    settings |= {"smtp_port": 1} if ends == "waiting" else {}
    settings |= {"username": "somebody else"} if ends == "wrong password" else {}
    document = {"training": {"epochs": 2}, "plugins": {"email": {"config": settings}}}
    (tmp_path / "bz.json").write_text(json.dumps(document), encoding="utf-8")
    work = tmp_path / "runs"
    script = SCRIPT.format(fails=ends == "failed", password=PASSWORD)
    (tmp_path / "train.py").write_text(script, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BZ_")}
    process = subprocess.run(
        [sys.executable, "-m", "bz", "train", "--plugin", "email"],
        cwd=tmp_path,
        env=environment | {"CANARY": PASSWORD},
        capture_output=True,
        check=False,
    )
    assert process.returncode == (1 if ends == "failed" else 0), process.stderr.decode()
    files = [path for path in work.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"bz.log", "run.json", ".lock"}
    assert any(path.suffix == ".pth" for path in files) is (ends != "failed")
    for path in files:
        assert_clean(path.read_bytes(), path)
    assert_clean(process.stdout + process.stderr, "the output")
    for envelope in drop.handler.envelopes:
        assert isinstance(envelope.content, bytes)
        assert_clean(envelope.content, "a mail")
    assert len(drop.mails) == {"sent": 2, "waiting": 0, "failed": 1, "wrong password": 0}[ends]
    assert_clean(bytes(drop.wire.sent), "the wire")


def test_password_in_the_users_error_is_taken_out_of_the_mail(drop: MailDrop, tmp_path: Path) -> None:
    def step(context: Any, batch: Any) -> Any:
        raise ValueError(f"cannot connect to smtp://me:{PASSWORD}@host")

    with pytest.raises(ValueError, match="cannot connect"):
        train(drop.settings, run_dir=tmp_path, training_step=step, metrics=None)
    [mail] = drop.mails
    text = mail.get_body(("plain",))
    assert text is not None
    assert "ValueError: cannot connect to smtp://me:**********@host" in text.get_content()


def test_server_that_repeats_the_password_is_not_quoted(drop: MailDrop) -> None:
    repeat = f"550 5.7.1 why did you send {secret_forms()[-1].decode()} and {PASSWORD}?"
    drop.handler.data = repeat
    settings = read_settings(drop.settings)
    delivery = MailServer(settings).deliver("bz@example.com", ["ada@example.com"], b"Subject: x\r\n\r\n", Deadline(5))
    reply = delivery.refused["ada@example.com"]
    assert_clean(reply.encode(), "the reply")
    assert reply.startswith("550 5.7.1 why did you send ")
    assert reply.endswith("********** and **********?")


def test_password_is_in_no_traceback_or_representation(drop: MailDrop) -> None:
    settings = read_settings(drop.settings)
    plugin = EmailNotificationPlugin(settings)
    assert_clean((repr(plugin) + str(plugin) + repr(vars(plugin)) + repr(plugin.state_dict())).encode(), "repr")
    with raw_server(keep_silent) as port:
        server = MailServer(read_settings(drop.settings | {"smtp_port": port}))
        with pytest.raises(DeliveryError) as caught:
            server.deliver("bz@example.com", ["ada@example.com"], b"Subject: x\r\n\r\n", Deadline(0.3))
    assert_clean("".join(traceback.format_exception(caught.value)).encode(), "traceback")


def test_refused_settings_do_not_show_the_password(drop: MailDrop) -> None:
    for changes in ({"smtp_port": 0}, {"security": "none", "ca_file": None}, {"username": None}, {"unknown": 1}):
        with pytest.raises(ConfigError) as caught:
            EmailNotificationPlugin(drop.settings | changes)
        error: BaseException | None = caught.value
        text = "".join(traceback.format_exception(caught.value))
        while error is not None:
            text += repr(error) + str(error) + repr(error.args)
            error = error.__cause__ or error.__context__
        assert_clean(text.encode(), changes)


def test_state_of_the_plugin_has_no_password(drop: MailDrop, tmp_path: Path) -> None:
    plugin = EmailNotificationPlugin(drop.settings)
    train(plugin, run_dir=tmp_path)
    assert_clean(pickle.dumps(plugin.state_dict()), "state")


def test_wire_recorder_sees_what_is_sent_in_clear(authority: Authority) -> None:
    """Without this one, the tests that find nothing on the wire would prove nothing."""
    import smtplib

    with mail_drop(authority, has_starttls=False) as drop, smtplib.SMTP("localhost", drop.port) as client:
        client.login(USERNAME, PASSWORD)
        assert any(form in drop.wire.sent for form in secret_forms())
