"""Teaches a tiny Llama to write: 42 kB of English prose, the data set descriptions that come with scikit-learn."""

from __future__ import annotations

import math
from importlib import resources
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from transformers import LlamaConfig, LlamaForCausalLM

from bz import LRSchedule, TrainingSpec

if TYPE_CHECKING:
    from bz import TrainingContext

WARM_UP_STEPS = 40


def build(hyperparameters: dict[str, Any]) -> TrainingSpec:
    """Return what `bz train` trains.

    The batches are mappings, so each goes to the model as keyword arguments, and the model returns its own loss: there
    is neither a `loss_fn` nor a step to write.
    """
    length, batch_size = hyperparameters["context_length"], hyperparameters["batch_size"]
    training_set, validation_set = load_datasets(length)
    model = make_model(length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=hyperparameters["lr"], weight_decay=0.1)
    return TrainingSpec(
        model=model,
        optimizer=optimizer,
        loss_fn=None,
        training_loader=DataLoader(training_set, batch_size, shuffle=True),
        validation_loader=DataLoader(validation_set, batch_size),
        lr_scheduler=LRSchedule(LambdaLR(optimizer, warm_up_and_decay), every="1 step"),
    )


class Excerpts(Dataset[dict[str, torch.Tensor]]):
    """Excerpts of a text as mappings, which the model takes as keywords; it shifts the labels by itself."""

    def __init__(self, excerpts: torch.Tensor) -> None:
        self.excerpts = excerpts

    def __len__(self) -> int:
        return len(self.excerpts)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return one excerpt."""
        return {"input_ids": self.excerpts[index], "labels": self.excerpts[index]}


def load_datasets(length: int) -> tuple[Excerpts, Excerpts]:
    """Return nine excerpts of ten to learn from and every tenth to check on; each has `length` bytes."""
    excerpts = load_text().unfold(0, length, length)
    is_validation = torch.arange(len(excerpts)) % 10 == 0
    return Excerpts(excerpts[~is_validation]), Excerpts(excerpts[is_validation])


def load_text() -> torch.Tensor:
    """Return the text as numbers from 0 to 255, one for each byte: the simplest tokenizer there is."""
    files = sorted(resources.files("sklearn.datasets.descr").iterdir(), key=lambda file: file.name)
    text = b"\n".join(file.read_bytes() for file in files if file.name.endswith(".rst"))
    return torch.tensor(list(text))


def make_model(context_length: int) -> LlamaForCausalLM:
    """Return a Llama of 140,000 random weights; nothing is downloaded."""
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=context_length,
        initializer_range=0.06,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def warm_up_and_decay(step: int) -> float:
    """Return the share of the learning rate: up in a line, then down with the root of the steps."""
    return min((step + 1) / WARM_UP_STEPS, math.sqrt(WARM_UP_STEPS / (step + 1)))


def end_training_session(context: TrainingContext) -> None:
    """Write what the model says after "The data" to `sample.txt` in the folder of the run."""
    model: Any = context.model
    prompt = torch.tensor([list(b"The data")], device=context.device)
    with torch.random.fork_rng():  # whatever is drawn here, the training stays the same
        spoken = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_length=model.config.max_position_embeddings,
            do_sample=True,
            top_k=5,
            pad_token_id=0,
        )
    text = bytes(spoken[0].tolist()).decode(errors="replace")
    context.output_path("sample.txt").write_text(text + "\n", encoding="utf-8")
