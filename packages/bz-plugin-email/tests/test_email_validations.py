"""What the mails say about validations inside an epoch, epochs without one, and runs that end by a limit."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from mail_runs import At, train
from PIL import Image

from bz_plugin_email.curve import draw_losses
from bz_plugin_email.record import EpochLosses

if TYPE_CHECKING:
    from mail_servers import MailDrop

    from bz.training.result import TrainingResult


def body(drop: MailDrop, index: int = -1) -> str:
    part = drop.mails[index].get_body(("plain",))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def run(settings: dict[str, Any], run_dir: Path, losses: Mapping[int, float], *others: Any, **changes: Any) -> Any:
    """Train four batches an epoch, with validation losses by step."""

    def validation_step(context: Any, batch: Any) -> torch.Tensor:
        return torch.tensor(losses[context.global_step], dtype=torch.float64)

    result: TrainingResult = train(
        settings, *others, run_dir=run_dir, validation_step=validation_step, metrics=None, **changes
    )
    return result


def table(text: str) -> list[list[str]]:
    """Return the cells of the losses."""
    return [line.split() for line in text.partition("Validation loss\n")[2].splitlines() if line]


def test_bound_is_told_at_the_validation_that_passes_it(drop: MailDrop, tmp_path: Path) -> None:
    settings = drop.settings | {"when": "validation_loss < 0.4"}
    run(settings, tmp_path, {2: 0.5, 4: 0.3, 6: 0.6, 8: 0.5}, validation_interval="2 steps")
    assert drop.subjects == ["Training Reached validation_loss < 0.4 - digits", "Training Complete - digits"]
    run(settings, tmp_path / "b", {3: 0.3, 6: 0.6}, validation_interval="3 steps")
    assert "validation_loss is now 0.3." in body(drop, 2)
    assert "- Epochs: 0 of 2; epoch 1 was under way, step 3\n" in body(drop, 2)
    assert "- Best validation loss: 0.3000 (epoch 1, step 3)\n" in body(drop, 2)


def test_best_is_that_of_all_validations(drop: MailDrop, tmp_path: Path) -> None:
    run(drop.settings, tmp_path, {0: 0.1, 3: 0.3, 6: 0.6}, validation_interval="3 steps", validate_first=True)
    assert "- Best validation loss: 0.3000 (epoch 1, step 3)\n" in body(drop)
    assert [row[::2] for row in table(body(drop))] == [["1", "0.3000"], ["2", "0.6000"]]


def test_epochs_without_validation_are_not_compared_by_their_training_loss(drop: MailDrop, tmp_path: Path) -> None:
    run(drop.settings, tmp_path, {8: 100.0}, validation_interval="2 epochs", epochs=3)
    assert "- Best validation loss: 100.0000 (epoch 2)\n" in body(drop)
    rows = table(body(drop))
    assert [len(row) for row in rows] == [2, 4, 2]
    assert rows[1][2:] == ["100.0000", "best"]


def test_condition_on_a_validation_that_comes_later_is_not_reported(
    drop: MailDrop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = drop.settings | {"when": ["validation_loss < 1", "validation_lss < 1"], "on_completion": False}
    run(settings, tmp_path, {8: 0.5}, validation_interval="2 epochs", epochs=3)
    assert drop.subjects == ["Training Reached validation_loss < 1 - digits"]
    [message] = [record.getMessage() for record in caplog.records if record.name.startswith("bz_plugin_email")]
    assert message.endswith("this run has no 'validation_lss'. Did you mean 'validation_loss'?")


@pytest.mark.parametrize(("max_steps", "place"), [(6, "2"), (8, "2")])
def test_run_that_ends_by_a_number_of_steps_is_told(drop: MailDrop, tmp_path: Path, max_steps: int, place: str) -> None:
    settings = drop.settings | {"every_epochs": 1}
    run(settings, tmp_path, {4: 0.5, max_steps: 0.4}, epochs=None, max_steps=max_steps)
    assert drop.subjects == ["Training Epoch 1 of 2 - digits", "Training Complete - digits"]
    assert f"Epoch 1 of 2 is done, step 4 of {max_steps}." in body(drop, 0)
    assert f"Training session completed: max_steps {max_steps} reached." in body(drop)
    assert f"- Total epochs: {place}\n- Steps: {max_steps}\n" in body(drop)


def test_run_without_a_planned_number_of_epochs_is_told(drop: MailDrop, tmp_path: Path) -> None:
    class Unsized:
        def __iter__(self) -> Any:
            generator = torch.Generator().manual_seed(1)
            inputs = torch.randn(4, 8, 4, generator=generator)
            return iter([(one, (one[:, 0] > 0).long()) for one in inputs])

    settings = drop.settings | {"every_epochs": 1}
    changes = {"training_loader": Unsized(), "epochs": None, "max_steps": 6}
    run(settings, tmp_path, {4: 0.5, 6: 0.4}, **changes)
    assert drop.subjects == ["Training Epoch 1 - digits", "Training Complete - digits"]
    assert "Epoch 1 is done, step 4 of 6." in body(drop, 0)
    assert "- Epochs: 1\n- Steps: 4 of 6\n" in body(drop, 0)
    assert "- Total epochs: 2\n" in body(drop)


def test_time_limit_that_ends_the_run_early_is_told(drop: MailDrop, tmp_path: Path) -> None:
    settings = drop.settings | {"every_epochs": 1}
    run(settings, tmp_path, dict.fromkeys(range(50), 0.5), epochs=10, max_time="0.000001 s")
    assert drop.subjects == ["Training Complete - digits"]
    assert "Training session completed: max_time 0.000001 s reached." in body(drop)
    assert "- Total epochs: 1 of 10\n" in body(drop)


def test_failure_without_a_planned_number_of_epochs_is_told(drop: MailDrop, tmp_path: Path) -> None:
    def step(context: Any, batch: Any) -> torch.Tensor:
        if context.epoch == 2:
            raise ValueError("too hot")
        loss: torch.Tensor = torch.nn.functional.cross_entropy(context.model(batch[0]), batch[1])
        return loss

    with pytest.raises(ValueError, match="too hot"):
        train(drop.settings, run_dir=tmp_path, training_step=step, metrics=None, epochs=None, max_time="1 h")
    assert "- Total epochs: 1; epoch 2 was under way, step 4\n" in body(drop)


def test_resumed_run_tells_the_best_of_all_validations(drop: MailDrop, tmp_path: Path) -> None:
    options: dict[str, Any] = {"validation_interval": "3 steps", "epochs": 3}
    losses = {3: 0.3, 6: 0.6, 9: 0.4, 12: 0.5}
    settings = drop.settings | {"when": "validation_loss < 0.35", "on_interruption": False}
    with pytest.raises(KeyboardInterrupt):
        run(settings, tmp_path, losses, At(lambda _: os.kill(os.getpid(), signal.SIGINT), 2, 2), **options)
    run(settings, tmp_path, losses, **options, resume=tmp_path)
    assert drop.subjects == ["Training Reached validation_loss < 0.35 - digits", "Training Complete - digits"]
    assert "- Best validation loss: 0.3000 (epoch 1, step 3)\n" in body(drop)


def test_picture_joins_validations_over_epochs_without_one() -> None:
    losses = [EpochLosses(epoch, 1 / epoch, 0.5 if epoch % 5 == 0 else None) for epoch in range(1, 101)]
    whole = [one._replace(validation=0.5) for one in losses[4:]]
    assert 0.9 < orange_pixels(losses) / orange_pixels([*losses[:4], *whole]) < 1.1


def orange_pixels(losses: list[EpochLosses]) -> int:
    picture = draw_losses(losses)
    assert picture is not None
    pixels = np.array(Image.open(io.BytesIO(picture)).convert("RGB"))
    return int((pixels == (0xEB, 0x68, 0x34)).all(axis=2).sum())
