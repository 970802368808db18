"""Train 30 epochs while no file may grow beyond a size; the system then refuses to write, as on a full disk.

Usage: full_disk.py SIZE_BYTES [EPOCH]; with an epoch, there is room again from its end on.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from typing import Any

import torch

from bz import Trainer
from bz.plugins import Plugin
from bz_plugin_logging import LoggingPlugin


class MakeRoom(Plugin):
    """Lifts the limit after an epoch, behind the log."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def end_epoch(self, context: Any) -> None:
        if context.epoch == self.epoch:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
model = torch.nn.Linear(1, 1)
trainer = Trainer()
trainer.add_plugin(LoggingPlugin())
trainer.add_plugin(MakeRoom(int(sys.argv[2]) if len(sys.argv) > 2 else -1))
result = trainer.train(
    model,
    torch.optim.SGD(model.parameters(), lr=0.1),
    torch.nn.MSELoss(),
    [(torch.ones(1, 1), torch.ones(1, 1))],
    epochs=30,
    device="cpu",
)
usage = result.plugin_usage[0]
summary = {
    "status": result.status,
    "epochs": result.epochs,
    "failures": usage.failures,
    "is_quarantined": usage.is_quarantined,
}
sys.stdout.write(json.dumps(summary))
