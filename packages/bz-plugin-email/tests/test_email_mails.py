"""Mails: headers, both parts, the picture."""

from __future__ import annotations

import email
import email.policy
import random
import re
import subprocess
import sys
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mail_runs import train

from bz_plugin_email.config import read_settings
from bz_plugin_email.curve import draw_losses
from bz_plugin_email.message import Mail, compose
from bz_plugin_email.record import EpochLosses
from bz_plugin_email.report import Report, one_line

if TYPE_CHECKING:
    from mail_servers import MailDrop

SETTINGS = read_settings({"smtp_server": "localhost", "from_email": "bz@example.com", "to_email": "ada@example.com"})
LOSSES = tuple(EpochLosses(epoch, 1 / epoch, 1.5 / epoch) for epoch in range(1, 13))
HEADERS = ["Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"]


def mail_about(model_name: object, picture: bytes | None = None) -> Mail:
    subject = f"Training Complete - {one_line(model_name, 150) or 'Model'}"
    report = Report(subject, "It is done.", (("Machine", "node"),), LOSSES, 12)
    return compose(report, SETTINGS, "a key", picture)


def parsed(mail: Mail) -> EmailMessage:
    return email.message_from_bytes(mail.content, policy=email.policy.SMTP)


@given(st.text(max_size=300))
@example("0 00000000000000¡¡¡¡¡\U0002fa1e¡ ¡")  # Python's own folding moves the space
@example("=?utf-8?b?YmFk?= looks encoded")
@settings(max_examples=500)
def test_any_model_name_gives_one_subject_and_no_other_header(model_name: str) -> None:
    mail = mail_about(model_name)
    message = parsed(mail)
    assert list(message.keys()) == HEADERS
    assert message["Subject"] == mail.subject == f"Training Complete - {one_line(model_name, 150) or 'Model'}"
    assert all(len(line) <= 998 and line.isascii() for line in mail.content.splitlines())


@pytest.mark.parametrize(
    ("model_name", "shown"),
    [
        ("digits\r\nBcc: eve@example.com", "digits Bcc: eve@example.com"),
        ("a\nb\x00c\td\u2028e", "a b c d e"),
        ("right\u202eto left", "right to left"),
        ("🚀 ViT-Größe", "🚀 ViT-Größe"),
        ("x" * 10_000, "x" * 149 + "…"),
        ("lone \ud800 surrogate", "lone ? surrogate"),
        (17, "17"),
        ("", "Model"),
        ("\n", "Model"),
    ],
)
def test_model_name_is_made_safe_for_the_subject(drop: MailDrop, tmp_path: Any, model_name: object, shown: str) -> None:
    train(drop.settings, run_dir=tmp_path, epochs=1, hyperparameters={"model_name": model_name})
    [mail] = drop.mails
    assert mail["Subject"] == f"Training Complete - {shown}"
    assert mail["Bcc"] is None
    assert [address.addr_spec for address in mail["To"].addresses] == drop.handler.envelopes[0].rcpt_tos


def test_run_without_a_model_name_is_called_model(drop: MailDrop, tmp_path: Any) -> None:
    train(drop.settings, run_dir=tmp_path, epochs=1, hyperparameters={})
    assert drop.subjects == ["Training Complete - Model"]


def test_name_of_a_metric_cannot_bring_html_into_the_mail() -> None:
    report = Report("<b>", "<script>", (("<i>", "<img src=x onerror=alert(1)>"),))
    html = parsed(compose(report, SETTINGS, "key", None)).get_body(("html",))
    assert html is not None
    text = html.get_content()
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert not re.search(r"<(script|img|b|i)\b", text)


def test_picture_is_inside_the_html_part() -> None:
    picture = draw_losses(LOSSES)
    assert picture is not None
    message = parsed(mail_about("digits", picture))
    kinds = [part.get_content_type() for part in message.walk()]
    assert kinds == ["multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"]
    *_, html, image = message.walk()
    assert image["Content-Disposition"].content_disposition == "inline"
    assert f'src="cid:{image["Content-ID"].strip("<>")}"' in html.get_content()
    assert image.get_payload(decode=True) == picture
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")


def test_mail_has_no_picture_when_it_is_switched_off_or_there_is_one_epoch(drop: MailDrop, tmp_path: Any) -> None:
    train(drop.settings | {"loss_curve": False}, run_dir=tmp_path / "1", epochs=2)
    train(drop.settings | {"loss_curve": True}, run_dir=tmp_path / "2", epochs=1)
    train(drop.settings | {"loss_curve": True}, run_dir=tmp_path / "3", epochs=2)
    num_pictures = [sum(part.get_content_type() == "image/png" for part in mail.walk()) for mail in drop.mails]
    assert num_pictures == [0, 0, 1]


def test_picture_is_left_out_without_matplotlib() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from bz_plugin_email.curve import draw_losses\n"
        "from bz_plugin_email.record import EpochLosses\n"
        "print(draw_losses([EpochLosses(1, 1.0, None), EpochLosses(2, 0.5, None)]))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "None\n"


@pytest.mark.parametrize("values", [[float("nan")] * 3, [float("inf"), 1.0, float("nan")], [1e300, -1e300, 0.0]])
def test_picture_can_be_drawn_of_any_losses(values: list[float]) -> None:
    picture = draw_losses([EpochLosses(index, value, None) for index, value in enumerate(values, 1)])
    assert (picture is None) is all(value != value for value in values)  # noqa: PLR0124 - NaN


def test_composing_draws_no_random_numbers_and_opens_no_pyplot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)  # other tests may have imported it
    before = random.getstate()
    mail_about("digits", draw_losses(LOSSES))
    assert random.getstate() == before
    assert "matplotlib.pyplot" not in sys.modules


def test_same_event_has_the_same_message_id() -> None:
    assert mail_about("digits").message_id == mail_about("digits").message_id
    report = Report("s", "t")
    assert compose(report, SETTINGS, "1", None).message_id != compose(report, SETTINGS, "2", None).message_id


def test_table_shows_the_last_ten_epochs_and_marks_the_best() -> None:
    body = parsed(mail_about("digits")).get_body(("plain",))
    assert body is not None
    lines = body.get_content().splitlines()
    table = lines[lines.index("Epoch  Training loss  Validation loss") + 1 :]
    assert table == [
        f"{epoch:5}  {1 / epoch:13.4f}  {1.5 / epoch:15.4f}{'  best' * (epoch == 12)}" for epoch in range(3, 13)
    ]
