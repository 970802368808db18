"""The code and the settings of the guide to custom plugins, pasted unchanged into `tests/guide`, work.

`my_plugins.py` holds its four example classes, `method_1.py` its training script, `bz.json` its settings.
"""

from __future__ import annotations

import email
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import torch
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

GUIDE = Path(__file__).parent / "guide"

DIGITS = """
import torch
from sklearn.datasets import load_digits

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.data, dtype=torch.float32) / 16
dataset = torch.utils.data.TensorDataset(images, torch.tensor(digits.target))
training_set, validation_set = torch.utils.data.random_split(dataset, [1437, 360])
training_loader = torch.utils.data.DataLoader(training_set, batch_size=64, shuffle=True)
validation_loader = torch.utils.data.DataLoader(validation_set, batch_size=64)
model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
loss_fn = torch.nn.CrossEntropyLoss()
"""

SPEC = """
from bz import TrainingSpec

training_spec = TrainingSpec(model, optimizer, loss_fn, training_loader)
"""

# The guide names a server of the real world: its name leads to the server of the test, as an entry in the hosts file
# would, or nowhere, as on a machine without a network.
NETWORK = """
import os
import socket

_getaddrinfo = socket.getaddrinfo
_port = os.environ.get("TEST_SMTP_PORT")


def getaddrinfo(host, port, *arguments, **options):
    if _port and (host, port) == ("smtp.gmail.com", 587):
        return _getaddrinfo("127.0.0.1", int(_port), *arguments, **options)
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


socket.getaddrinfo = getaddrinfo
"""

FOUR_CLASSES = """
from bz import Trainer
from my_plugins import LoggingPlugin, SmartCheckpointPlugin, VisualizationPlugin
from torchmetrics.classification import MulticlassAccuracy

trainer = Trainer(strict_plugins=True)
trainer.add_plugin(LoggingPlugin())
trainer.add_plugin(SmartCheckpointPlugin(max_checkpoints=2))
trainer.add_plugin(VisualizationPlugin(update_interval=2))
trainer.train(
    model, optimizer, loss_fn, training_loader, validation_loader, epochs=4,
    metrics={"accuracy": MulticlassAccuracy(10)}, hyperparameters={"lr": 0.01},
)
"""


class Inbox:
    """Takes the mail of one user."""

    def __init__(self) -> None:
        self.mails: list[Message] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        assert session.ssl is not None
        assert envelope.rcpt_tos == ["recipient@example.com"]
        assert isinstance(envelope.content, bytes)
        self.mails.append(email.message_from_bytes(envelope.content))
        return "250 OK"

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        expected = LoginPassword(b"your_email@gmail.com", b"your_app_password")
        return AuthResult(success=data == expected)


@pytest.fixture
def smtp_server() -> Iterator[tuple[Inbox, int]]:
    """A server that wants STARTTLS and a login, with a certificate that nobody knows."""
    inbox = Inbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    controller = Controller(
        inbox,
        hostname="127.0.0.1",
        port=port,
        tls_context=context,
        require_starttls=True,
        auth_required=True,
        authenticator=inbox.authenticate,
    )
    controller.start()
    yield inbox, port
    controller.stop()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder in which the guide's plugins can be imported, and from which only its mail server can be reached."""
    shutil.copy(GUIDE / "my_plugins.py", tmp_path)
    (tmp_path / "network").mkdir()
    (tmp_path / "network" / "sitecustomize.py").write_text(NETWORK, encoding="utf-8")
    return tmp_path


def run(project: Path, *arguments: str, smtp_port: int | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BZ_")}
    environment |= {"PYTHONPATH": str(project / "network"), "MPLBACKEND": "Agg"}
    if smtp_port is not None:
        environment["TEST_SMTP_PORT"] = str(smtp_port)
    finished = subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


def plain_text(mail: Message) -> str:
    """Return the one part of a mail, with line breaks as Python has them."""
    parts = [part for part in mail.walk() if part.get_content_type() == "text/plain"]
    assert len(parts) == 1
    content = parts[0].get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode().replace("\r\n", "\n")


def test_method_1_writes_the_log_and_sends_the_mail(project: Path, smtp_server: tuple[Inbox, int]) -> None:
    inbox, port = smtp_server
    method_1 = (GUIDE / "method_1.py").read_text(encoding="utf-8")
    (project / "script.py").write_text(DIGITS + SPEC + method_1, encoding="utf-8")
    finished = run(project, "script.py", smtp_port=port)
    assert "Email notification sent to recipient@example.com" in finished.stdout
    assert "Training log saved to my_training_log.json" in finished.stdout

    events = json.loads((project / "my_training_log.json").read_text(encoding="utf-8"))
    assert [event["event"] for event in events] == ["training_start", "epoch_complete", "training_complete"]
    assert events[-1]["total_epochs"] == 1

    [mail] = inbox.mails
    assert mail["Subject"] == "Training Complete - Model"
    assert "- Total epochs: 1\n" in plain_text(mail)
    assert "- Final training loss: " in plain_text(mail)
    assert "failed" not in finished.stderr


def test_example_classes_write_log_checkpoints_and_plots(project: Path) -> None:
    (project / "script.py").write_text(DIGITS + FOUR_CLASSES, encoding="utf-8")
    finished = run(project, "script.py")
    assert "Traceback" not in finished.stderr

    events = json.loads((project / "training_log.json").read_text(encoding="utf-8"))
    epochs = events[1:-1]
    assert [event["epoch"] for event in epochs] == [1, 2, 3, 4]
    assert all(0 < event["validation_metrics"]["accuracy"] <= 1 for event in epochs)

    checkpoints = sorted((project / "checkpoints").iterdir())
    assert [path.name[:18] for path in checkpoints] == ["checkpoint_epoch_3", "checkpoint_epoch_4"]
    state = torch.load(checkpoints[-1], weights_only=True)
    assert list(state) == [
        "epoch",
        "model_state_dict",
        "optimizer_state_dict",
        "validation_loss",
        "training_metrics",
        "validation_metrics",
        "hyperparameters",
    ]
    assert state["validation_loss"] == epochs[-1]["validation_loss"]

    plots = {path.name: path.read_bytes() for path in (project / "plots").iterdir()}
    assert set(plots) == {f"{kind}_plot_epoch_{epoch}.png" for kind in ("loss", "metrics") for epoch in (2, 4)}
    assert all(content.startswith(b"\x89PNG") for content in plots.values())


def test_settings_of_the_guide_run_without_a_network(project: Path) -> None:
    shutil.copy(GUIDE / "bz.json", project)
    (project / "train.py").write_text(DIGITS, encoding="utf-8")
    finished = run(project, "-m", "bz", "train")
    [run_folder] = (project / "runs").iterdir()
    events = json.loads((run_folder / "training_log.json").read_text(encoding="utf-8"))
    assert [event["event"] for event in events] == ["training_start", "epoch_complete", "training_complete"]
    assert list(run_folder.glob("**/events.out.tfevents.*")) != []
    lines = (finished.stdout + finished.stderr).splitlines()
    assert sum("mail waits" in line for line in lines) == 1
    assert "your_app_password" not in finished.stdout + finished.stderr
    files = [path for path in run_folder.glob("**/*") if path.is_file()]
    assert [path for path in files if b"your_app_password" in path.read_bytes()] == []
