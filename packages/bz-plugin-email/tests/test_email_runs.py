"""Which mails a run sends, and that none is sent twice."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mail_runs import At, train
from mail_servers import PASSWORD, RECIPIENTS, Authority, Handler, MailDrop, keep_silent, mail_drop, raw_server

from bz_plugin_email import EmailNotificationPlugin


def body(drop: MailDrop, index: int = -1) -> str:
    part = drop.mails[index].get_body(("plain",))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def failing_step(context: Any, batch: Any) -> torch.Tensor:
    if context.epoch == 2:
        raise ValueError("too hot\nin here <b>")
    loss: torch.Tensor = torch.nn.functional.cross_entropy(context.model(batch[0]), batch[1])
    return loss


def interrupt(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_completion_is_told_as_in_the_guide(drop: MailDrop, tmp_path: Path) -> None:
    result = train(drop.settings, run_dir=tmp_path)
    [mail] = drop.mails
    assert mail["Subject"] == "Training Complete - digits"
    assert mail["From"] == "bz <trainer@example.com>"
    assert [address.addr_spec for address in mail["To"].addresses] == list(RECIPIENTS)
    [envelope] = drop.handler.envelopes
    assert envelope.rcpt_tos == list(RECIPIENTS)
    assert envelope.mail_from == "trainer@example.com"
    text = body(drop)
    assert text.startswith(
        "Training session completed successfully!\n\nSummary:\n- Total epochs: 2\n- Training duration: 0:00:"
    )
    assert f"- Best validation loss: {result.validation_loss:.4f} (epoch 2)\n" in text
    assert f"- Final training loss: {result.training_loss:.4f}\n" in text
    assert f"- Training metrics: accuracy {result.training_metrics['accuracy']:.4f}\n" in text
    assert f"- Run folder: {tmp_path}\n" in text
    assert f"    2  {result.training_loss:13.4f}  {result.validation_loss:15.4f}  best\n" in text


def test_nothing_waits_after_a_mail_was_sent(drop: MailDrop, tmp_path: Path) -> None:
    train(drop.settings, run_dir=tmp_path)
    assert {path.name for path in (tmp_path / "outbox").iterdir()} == {".lock", "sent.jsonl"}


def test_run_without_validation_has_no_best_validation_loss(drop: MailDrop, tmp_path: Path) -> None:
    train(drop.settings, run_dir=tmp_path, validation_loader=None)
    assert "Training loss" in body(drop)
    assert "Validation" not in body(drop)
    assert "validation loss" not in body(drop)


def test_nan_losses_are_no_best_and_no_fault(drop: MailDrop, tmp_path: Path) -> None:
    train(
        drop.settings,
        run_dir=tmp_path,
        training_step=nan_step,
        validation_loader=None,
        metrics=None,
        on_nonfinite="ignore",
    )
    assert "Final training loss: nan" in body(drop)
    assert "  best\n" not in body(drop)


def nan_step(context: Any, batch: Any) -> torch.Tensor:
    loss: torch.Tensor = torch.nn.functional.cross_entropy(context.model(batch[0]), batch[1])
    return loss * float("nan")


def test_failure_is_told_with_type_and_message_in_one_line(drop: MailDrop, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too hot"):
        train(drop.settings, run_dir=tmp_path, training_step=failing_step, metrics=None)
    assert drop.subjects == ["Training Failed - digits"]
    assert "- Error: ValueError: too hot in here <b>\n" in body(drop)
    assert "- Total epochs: 1 of 2; epoch 2 was under way, step 4\n" in body(drop)
    html = drop.mails[0].get_body(("html",))
    assert html is not None
    assert "too hot in here &lt;b&gt;" in html.get_content()
    assert "failing_step" not in drop.mails[0].as_string()


def test_interruption_is_told(drop: MailDrop, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(drop.settings, At(interrupt, 2, 1), run_dir=tmp_path)
    assert drop.subjects == ["Training Interrupted - digits"]
    assert body(drop).startswith("Training session was interrupted: SIGINT received.")


def test_stop_by_a_plugin_is_told(drop: MailDrop, tmp_path: Path) -> None:
    train(drop.settings, At(lambda context: context.request_stop("good enough"), 1), run_dir=tmp_path)
    assert drop.subjects == ["Training Stopped - digits"]
    assert body(drop).startswith("Training session was stopped: good enough.")


@pytest.mark.parametrize("switch", ["on_completion", "on_failure", "on_interruption"])
def test_closing_mail_can_be_switched_off(drop: MailDrop, tmp_path: Path, switch: str) -> None:
    settings = drop.settings | {switch: False}
    train(settings, run_dir=tmp_path / "completed")
    with pytest.raises(ValueError, match="too hot"):
        train(settings, run_dir=tmp_path / "failed", training_step=failing_step, metrics=None)
    with pytest.raises(KeyboardInterrupt):
        train(settings, At(interrupt, 1, 1), run_dir=tmp_path / "interrupted")
    left = {"on_completion": "Complete", "on_failure": "Failed", "on_interruption": "Interrupted"}
    expected = [f"Training {word} - digits" for name, word in left.items() if name != switch]
    assert drop.subjects == expected


def test_progress_is_told_every_few_epochs_and_the_last_is_left_to_the_closing_mail(
    drop: MailDrop, tmp_path: Path
) -> None:
    train(drop.settings | {"every_epochs": 2}, run_dir=tmp_path, epochs=6)
    assert drop.subjects == [
        "Training Epoch 2 of 6 - digits",
        "Training Epoch 4 of 6 - digits",
        "Training Complete - digits",
    ]
    assert "- Epochs: 2 of 6\n" in body(drop, 0)


def test_last_epoch_is_told_when_there_is_no_closing_mail(drop: MailDrop, tmp_path: Path) -> None:
    train(drop.settings | {"every_epochs": 2, "on_completion": False}, run_dir=tmp_path, epochs=2)
    assert drop.subjects == ["Training Epoch 2 of 2 - digits"]


def test_bound_is_told_once(drop: MailDrop, tmp_path: Path) -> None:
    conditions = ["validation_accuracy > 0.5", "validation_loss < 0", "training_loss<100"]
    train(drop.settings | {"when": conditions, "on_completion": False}, run_dir=tmp_path, epochs=3)
    assert sorted(drop.subjects) == [
        "Training Reached training_loss < 100 - digits",
        "Training Reached validation_accuracy > 0.5 - digits",
    ]


def test_bound_on_an_unknown_metric_is_reported_once(
    drop: MailDrop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(drop.settings | {"when": "validation_acuracy > 0.5"}, run_dir=tmp_path, epochs=3)
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("bz_plugin_email")]
    assert warnings == [
        (
            "`when` has 'validation_acuracy > 0.5', but this run has no 'validation_acuracy'. "
            "Did you mean 'validation_accuracy'?"
        )
    ]


def test_resumed_run_tells_about_the_whole_run_and_nothing_twice(drop: MailDrop, tmp_path: Path) -> None:
    settings = drop.settings | {"every_epochs": 1, "when": "validation_accuracy > 0.1"}
    with pytest.raises(KeyboardInterrupt):
        train(settings, At(interrupt, 3, 1), run_dir=tmp_path, epochs=4)
    train(settings, run_dir=tmp_path, epochs=4, resume=tmp_path)
    whole = body(drop)
    assert drop.subjects == [
        "Training Reached validation_accuracy > 0.1 - digits",
        "Training Epoch 1 of 4 - digits",
        "Training Epoch 2 of 4 - digits",
        "Training Interrupted - digits",
        "Training Epoch 3 of 4 - digits",
        "Training Complete - digits",
    ]
    assert "(2 sessions)" in whole
    table = whole.partition("Epoch  Training")[2]
    assert table.count("\n") == 5

    train(drop.settings, run_dir=tmp_path / "uninterrupted", epochs=4)
    assert table == body(drop).partition("Epoch  Training")[2]


def test_epoch_that_is_repeated_after_a_kill_is_not_told_twice(drop: MailDrop, tmp_path: Path) -> None:
    """The state of the first checkpoint knows nothing of the mails that were sent after it."""
    settings = drop.settings | {"every_epochs": 1, "when": "validation_accuracy > 0.1"}
    train(settings, run_dir=tmp_path, epochs=3, checkpoint_interval=1)
    first = min((tmp_path / "state").glob("*.pth"))
    before = drop.subjects
    train(settings, run_dir=tmp_path, epochs=3, resume=first)
    train(settings, run_dir=tmp_path, epochs=3, resume=tmp_path)
    assert drop.subjects == before
    ids = [mail["Message-ID"] for mail in drop.mails]
    assert len(set(ids)) == len(ids) == 4


def test_bound_that_was_passed_before_the_resume_is_in_the_state(drop: MailDrop, tmp_path: Path) -> None:
    settings = drop.settings | {"when": "validation_accuracy > 0.1", "on_completion": False}
    train(settings, run_dir=tmp_path, epochs=1)
    shutil.rmtree(tmp_path / "outbox")
    train(settings, run_dir=tmp_path, epochs=2, resume=tmp_path)
    assert drop.subjects == ["Training Reached validation_accuracy > 0.1 - digits"]


def test_run_that_goes_on_after_its_end_is_told_again(drop: MailDrop, tmp_path: Path) -> None:
    train(drop.settings, run_dir=tmp_path, epochs=2)
    train(drop.settings, run_dir=tmp_path, epochs=3, resume=tmp_path)
    assert drop.subjects == ["Training Complete - digits"] * 2


def test_two_runs_of_one_script_are_told_both(drop: MailDrop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plugin = EmailNotificationPlugin(drop.settings)
    train(plugin)
    train(plugin)
    assert drop.subjects == ["Training Complete - digits"] * 2
    assert (tmp_path / "outbox" / "sent.jsonl").exists()


def test_mail_that_waits_goes_out_with_the_next_session(authority: Authority, drop: MailDrop, tmp_path: Path) -> None:
    train(drop.settings | {"smtp_port": 1}, run_dir=tmp_path, epochs=1)
    [waiting] = (tmp_path / "outbox").glob("*.eml")
    content = waiting.read_bytes()
    train(drop.settings, run_dir=tmp_path, epochs=2, resume=tmp_path)
    assert drop.subjects == ["Training Complete - digits"] * 2
    assert drop.handler.envelopes[0].content == content
    assert not list((tmp_path / "outbox").glob("*.eml"))


def test_mail_is_retried_only_for_those_who_have_not_got_it(authority: Authority, tmp_path: Path) -> None:
    handler = Handler({RECIPIENTS[0]: "550 5.1.1 no such user", RECIPIENTS[1]: "451 4.7.1 greylisted"})
    with mail_drop(authority, handler=handler) as drop:
        train(drop.settings, run_dir=tmp_path, epochs=1)
        handler.recipients.clear()
        train(drop.settings | {"on_completion": False}, run_dir=tmp_path, resume=tmp_path)
        assert [one.rcpt_tos for one in handler.envelopes] == [[RECIPIENTS[2]], [RECIPIENTS[1]]]
        assert len({mail["Message-ID"] for mail in drop.mails}) == 1
        [kept] = (tmp_path / "outbox" / "failed").glob("*.eml")
        assert not list((tmp_path / "outbox").glob("*.eml"))
        assert kept.stat().st_mode & 0o777 == 0o600


def test_long_silence_during_the_run_does_not_hold_the_training_up(
    drop: MailDrop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with raw_server(keep_silent) as port:
        settings = drop.settings | {"smtp_port": port, "timeout_seconds": 3, "every_epochs": 1, "on_completion": False}
        [usage] = train(settings, run_dir=tmp_path, epochs=20).plugin_usage
    assert 2.9 < usage.seconds < 30  # sixty, if each epoch waited
    assert usage.failures == 0
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) <= 2  # the first round may end before the training does
    assert lines[-1].startswith(f"20 mails wait in {tmp_path / 'outbox'}: localhost:{port} took longer than ")


def test_first_ctrl_c_ends_the_wait(tmp_path: Path, drop: MailDrop) -> None:
    with raw_server(keep_silent) as port:
        script = tmp_path / "script.py"
        settings = drop.settings | {"smtp_port": port, "timeout_seconds": 60}
        script.write_text(
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "from mail_runs import At, train\n"
            "from pathlib import Path\n"
            "told = At(lambda context: print('trained', flush=True), 2)\n"
            f"train({settings!r}, told, run_dir=Path({str(tmp_path)!r}))\n"
        )
        with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"trained\n"
            time.sleep(1.5)
            process.send_signal(signal.SIGINT)
            started = time.monotonic()
            _, errors = process.communicate(timeout=60)
    assert time.monotonic() - started < 40
    assert b"1 mail waits in " in errors
    assert process.returncode == 0, "the run was completed"


def test_full_disk_is_reported_and_the_mail_is_sent_all_the_same(
    drop: MailDrop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "outbox").write_text("a file where the folder should be")
    result = train(drop.settings, run_dir=tmp_path)
    assert drop.subjects == ["Training Complete - digits"]
    assert [usage.failures for usage in result.plugin_usage] == [1]
    assert "plugin 'email' failed in end_training_session" in caplog.text


def test_training_is_the_same_with_and_without_the_plugin(drop: MailDrop, tmp_path: Path) -> None:
    def weights(settings: dict[str, Any], run_dir: Path) -> Any:
        random.seed(5)
        result = train(settings, run_dir=run_dir, epochs=3)
        return result.history, random.getstate(), torch.random.get_rng_state().tolist()

    quiet = drop.settings | {"on_completion": False}
    busy = drop.settings | {"every_epochs": 1, "loss_curve": True}
    assert weights(quiet, tmp_path / "quiet") == weights(busy, tmp_path / "busy")
    assert len(drop.mails) == 3


def test_password_is_read_only_to_log_in(drop: MailDrop) -> None:
    plugin = EmailNotificationPlugin(drop.settings)
    assert PASSWORD not in repr(plugin) + repr(vars(plugin))
