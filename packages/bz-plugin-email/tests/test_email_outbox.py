"""The outbox: nothing is lost, nothing is sent twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mail_servers import RECIPIENTS, MailDrop

from bz_plugin_email.config import EmailNotificationConfig, read_settings
from bz_plugin_email.courier import Outcome, send_waiting
from bz_plugin_email.message import Mail, compose
from bz_plugin_email.outbox import Outbox
from bz_plugin_email.report import Report
from bz_plugin_email.smtp import Deadline, Delivery, MailServer


def make_mail(settings: EmailNotificationConfig, key: str = "1") -> Mail:
    return compose(Report(f"Mail {key}", "Text."), settings, key, None)


def send(outbox: Outbox, settings: EmailNotificationConfig) -> tuple[Outcome, ...]:
    return send_waiting(outbox, MailServer(settings), settings.sender.addr_spec, Deadline(20))


@pytest.fixture
def settings(drop: MailDrop) -> EmailNotificationConfig:
    return read_settings(drop.settings)


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox")


def test_mail_waits_in_a_file_that_only_its_owner_reads(outbox: Outbox, settings: EmailNotificationConfig) -> None:
    mail = make_mail(settings)
    assert outbox.add(mail)
    [path] = outbox.paths()
    assert path.read_bytes() == mail.content
    assert path.stat().st_mode & 0o777 == 0o600
    assert outbox.folder.stat().st_mode & 0o777 == 0o700


def test_mail_is_added_once_whether_it_waits_was_sent_or_failed(
    outbox: Outbox, settings: EmailNotificationConfig, drop: MailDrop
) -> None:
    assert outbox.add(make_mail(settings))
    assert not outbox.add(make_mail(settings))
    send(outbox, settings)
    assert not outbox.add(make_mail(settings))
    drop.handler.data = "550 5.7.1 no"
    assert outbox.add(make_mail(settings, "2"))
    send(outbox, settings)
    assert not outbox.add(make_mail(settings, "2"))
    assert drop.subjects == ["Mail 1"]


def test_what_was_sent_is_written_down(outbox: Outbox, settings: EmailNotificationConfig, drop: MailDrop) -> None:
    drop.handler.recipients = {RECIPIENTS[0]: "550 5.1.1 no such user"}
    mail = make_mail(settings)
    outbox.add(mail)
    send(outbox, settings)
    ledger = outbox.folder / "sent.jsonl"
    [line] = [json.loads(text) for text in ledger.read_text(encoding="utf-8").splitlines()]
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "message_id": mail.message_id,
        "subject": "Mail 1",
        "sent_to": list(RECIPIENTS[1:]),
        "refused": {RECIPIENTS[0]: "550 5.1.1 no such user"},
    }
    assert ledger.stat().st_mode & 0o777 == 0o600


def test_process_killed_between_the_server_and_the_file_sends_nothing_again(
    outbox: Outbox, settings: EmailNotificationConfig, drop: MailDrop
) -> None:
    mail = make_mail(settings)
    outbox.add(mail)
    [waiting] = outbox.waiting()
    content = waiting.path.read_bytes()
    outbox.settle(waiting, Delivery(sent_to=RECIPIENTS))
    waiting.path.write_bytes(content)
    assert send(outbox, settings) == ()
    assert outbox.paths() == []
    assert drop.mails == []


def test_half_written_mail_of_a_killed_process_is_gone_when_the_mail_is_added_again(
    outbox: Outbox, settings: EmailNotificationConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(os, "fsync", lambda _: os.kill(os.getpid(), signal.SIGKILL))
        outbox.add(make_mail(settings))
    os.waitpid(child, 0)
    [half] = outbox.folder.iterdir()
    assert outbox.paths() == []
    assert outbox.add(make_mail(settings))
    assert not half.exists()
    assert list(outbox.folder.iterdir()) == outbox.paths()


def test_torn_last_line_of_the_ledger_is_survived(
    outbox: Outbox, settings: EmailNotificationConfig, drop: MailDrop
) -> None:
    outbox.add(make_mail(settings))
    ledger = outbox.folder / "sent.jsonl"
    ledger.write_text('{"message_id": "<bz.x@example.com>", "sent_to": ["ad')
    send(outbox, settings)
    assert not outbox.add(make_mail(settings))
    assert drop.subjects == ["Mail 1"]


def test_mail_of_somebody_else_in_the_folder_is_left_alone(
    outbox: Outbox, settings: EmailNotificationConfig, drop: MailDrop
) -> None:
    outbox.folder.mkdir()
    foreign = outbox.folder / "2026-draft.eml"
    foreign.write_bytes(b"Subject: mine\r\nTo: boss@example.com\r\nMessage-ID: <1@example.com>\r\n\r\nprivate\r\n")
    assert send(outbox, settings) == ()
    assert foreign.exists()
    assert drop.mails == []


def test_no_part_of_a_mail_stays_behind_when_it_cannot_be_written(
    outbox: Outbox, settings: EmailNotificationConfig
) -> None:
    outbox.add(make_mail(settings))
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from pathlib import Path\n"
        "from bz_plugin_email.message import Mail\n"
        "from bz_plugin_email.outbox import Outbox\n"
        f"Outbox(Path({str(outbox.folder)!r})).add(Mail('<bz.2@x>', (), 'Mail 2', b'x' * 1000))\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "OSError: [Errno 27] File too large" in finished.stderr
    assert len(list(outbox.folder.iterdir())) == 1


FLUSH = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_email_outbox import send
from bz_plugin_email.config import read_settings
from bz_plugin_email.outbox import Outbox
send(Outbox(Path({folder!r})), read_settings({settings!r}))
"""


def test_many_processes_that_flush_at_once_send_each_mail_once(
    outbox: Outbox, settings: EmailNotificationConfig, drop: MailDrop
) -> None:
    for number in range(5):
        outbox.add(make_mail(settings, str(number)))
    code = FLUSH.format(tests=str(Path(__file__).parent), folder=str(outbox.folder), settings=drop.settings)
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [process.wait(120) for process in processes] == [0] * 4
    assert drop.subjects == [f"Mail {number}" for number in range(5)]
    assert outbox.paths() == []


def test_lock_of_a_killed_process_is_free(outbox: Outbox, settings: EmailNotificationConfig, drop: MailDrop) -> None:
    outbox.add(make_mail(settings))
    code = (
        "import time; from pathlib import Path; from bz_plugin_email.outbox import Outbox\n"
        f"with Outbox(Path({str(outbox.folder)!r})).claimed(0) as is_ours:\n"
        "    print(is_ours, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        mail_server = MailServer(settings)
        started = time.monotonic()
        [outcome] = send_waiting(outbox, mail_server, settings.sender.addr_spec, Deadline(0.3))
        assert time.monotonic() - started < 20
        assert set(outcome.delivery.delayed.values()) == {"another process is sending from this outbox"}
        os.kill(process.pid, signal.SIGKILL)
    send(outbox, settings)
    assert drop.subjects == ["Mail 1"]


def test_ledger_that_cannot_be_written_does_not_make_a_mail_go_out_twice(
    outbox: Outbox, settings: EmailNotificationConfig, drop: MailDrop
) -> None:
    outbox.add(make_mail(settings))
    (outbox.folder / "sent.jsonl").symlink_to(outbox.folder / "nowhere" / "sent.jsonl")
    with pytest.raises(OSError, match="No such file"):
        send(outbox, settings)
    assert outbox.paths() == []
    assert drop.subjects == ["Mail 1"]
