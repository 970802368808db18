"""Accelerate: a hand-written loop whose parts were prepared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import tqdm
from torch.utils.data import DataLoader

from tools import LOGGED_EVERY

if TYPE_CHECKING:
    from harness.workloads import Task
    from tools import Ways


def _prepare(task: Task, **options: Any) -> tuple[Any, Any, Any, Any]:
    """Return accelerator, model, optimizer and batches; batches that are no `DataLoader` stay as they are."""
    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 - it keeps the settings of the first one
    accelerator = Accelerator(cpu=True, **options)
    model, optimizer = accelerator.prepare(task.model, task.optimizer)
    batches = accelerator.prepare(task.batches) if isinstance(task.batches, DataLoader) else task.batches
    return accelerator, model, optimizer, batches


def bare(task: Task) -> None:
    """Train, and nothing else."""
    accelerator, model, optimizer, batches = _prepare(task)
    for _ in range(task.epochs):
        model.train()
        for inputs, targets in batches:
            outputs = model(inputs)
            loss = task.loss_fn(outputs, targets)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()


def metrics(task: Task) -> None:
    """Gather outputs and targets as its examples do, and add up loss and hits."""
    accelerator, model, optimizer, batches = _prepare(task)
    for _ in range(task.epochs):
        model.train()
        loss_total, num_right, num_seen = 0.0, 0, 0
        for inputs, targets in batches:
            outputs = model(inputs)
            loss = task.loss_fn(outputs, targets)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            loss_total += loss.item()
            predicted, expected = accelerator.gather_for_metrics((outputs.argmax(1), targets))
            num_right += (predicted == expected).sum().item()
            num_seen += len(expected)


def everything(task: Task) -> None:
    """Add its bar, its tracker and its checkpoint."""
    accelerator, model, optimizer, batches = _prepare(task, log_with="tensorboard", project_dir=task.folder)
    accelerator.init_trackers("run")
    step = 0
    for _ in range(task.epochs):
        model.train()
        loss_total, num_right, num_seen = 0.0, 0, 0
        for inputs, targets in tqdm(batches):
            outputs = model(inputs)
            loss = task.loss_fn(outputs, targets)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            loss_total += loss.item()
            predicted, expected = accelerator.gather_for_metrics((outputs.argmax(1), targets))
            num_right += (predicted == expected).sum().item()
            num_seen += len(expected)
            step += 1
            if step % LOGGED_EVERY == 0:
                accelerator.log({"loss": loss_total / num_seen, "accuracy": num_right / num_seen}, step=step)
        accelerator.save_state(task.folder / "last")
    accelerator.end_training()


WAYS: Final[Ways] = {"accelerate": {"bare": bare, "metrics": metrics, "everything": everything}}
