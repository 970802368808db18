"""The loop that everybody writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from tools import LOGGED_EVERY

if TYPE_CHECKING:
    from harness.workloads import Task
    from tools import Ways


def bare(task: Task) -> None:
    """Train, and nothing else."""
    model, optimizer, loss_fn = task.model, task.optimizer, task.loss_fn
    for _ in range(task.epochs):
        model.train()
        for inputs, targets in task.batches:
            outputs = model(inputs)
            loss = loss_fn(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def metrics(task: Task) -> None:
    """Add up loss and hits."""
    model, optimizer, loss_fn = task.model, task.optimizer, task.loss_fn
    for _ in range(task.epochs):
        model.train()
        loss_total, num_right, num_seen = 0.0, 0, 0
        for inputs, targets in task.batches:
            outputs = model(inputs)
            loss = loss_fn(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_total += loss.item()
            num_right += int((outputs.argmax(1) == targets).sum().item())
            num_seen += len(targets)


def everything(task: Task) -> None:
    """Draw a bar, write events, save at the end."""
    model, optimizer, loss_fn = task.model, task.optimizer, task.loss_fn
    writer = SummaryWriter(task.folder)
    step = 0
    for _ in range(task.epochs):
        model.train()
        loss_total, num_right, num_seen = 0.0, 0, 0
        for inputs, targets in (bar := tqdm(task.batches)):
            outputs = model(inputs)
            loss = loss_fn(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_total += loss.item()
            num_right += int((outputs.argmax(1) == targets).sum().item())
            num_seen += len(targets)
            step += 1
            if step % LOGGED_EVERY == 0:
                writer.add_scalar("loss", loss, step)
                bar.set_postfix(loss=loss_total * len(targets) / num_seen, accuracy=num_right / num_seen, refresh=False)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, task.folder / "last.pth")
    writer.close()


WAYS: Final[Ways] = {"hand-written loop": {"bare": bare, "metrics": metrics, "everything": everything}}
