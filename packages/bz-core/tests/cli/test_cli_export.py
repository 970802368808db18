"""`bz export` hands a checkpoint to other programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from digit_runs import BUILD, train, write_script
from safetensors import safe_open
from safetensors.torch import load_file, load_model
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

STATE = "runs/a/state/epoch_2_step_26.pth"
ABOUT = {"run": "a", "checkpoint": STATE, "epoch": 2, "global_step": 26, "weights": "trained"}
TIED = """
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(64, 10, bias=False)
        self.decode = nn.Linear(64, 10, bias=False)
        self.decode.weight = self.encode.weight

    def forward(self, inputs):
        return self.encode(inputs) + self.decode(inputs)
"""
TIED_BUILD = BUILD.replace(
    "nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))", "Tied()"
)
HALVING = """
from bz.plugins import Plugin

class Halving(Plugin):
    def evaluation_weights(self, context):
        self.weights = {"4.bias": context.model.state_dict()["4.bias"] / 2}
        return self.weights

    def state_dict(self):
        return {"evaluation_weights": self.weights}
"""


@pytest.fixture(autouse=True)
def _own_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])


def exported(bz: Callable[..., Result], output: str, *arguments: str) -> dict[str, Any]:
    """Return what `bz export --json` prints."""
    result = bz("export", "--output", output, *arguments, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert isinstance(record, dict)
    return record


def weights() -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(STATE, weights_only=True)["model_state_dict"]
    return state


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))


def metadata_of(path: str) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def test_safetensors_hold_the_weights_and_say_where_they_come_from(bz: Callable[..., Result]) -> None:
    script = write_script()
    train(bz)
    script.unlink()  # neither script nor data are needed
    record = exported(bz, "m.safetensors")
    expected = weights()
    tensors = load_file("m.safetensors")
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    model = make_model()
    load_model(model, "m.safetensors")
    size = Path("m.safetensors").stat().st_size
    assert record == {**ABOUT, "output": "m.safetensors", "tensors": len(expected), "size_bytes": size}
    metadata = metadata_of("m.safetensors")
    assert metadata == {"format": "pt", "bz_version": "0.1.0"} | {key: str(value) for key, value in ABOUT.items()}


def test_tied_weights_are_written_once_and_tied_again(bz: Callable[..., Result]) -> None:
    write_script(TIED, TIED_BUILD)
    train(bz)
    assert exported(bz, "m.safetensors")["tensors"] == 1
    assert list(load_file("m.safetensors")) == ["decode.weight"]
    assert metadata_of("m.safetensors")["encode.weight"] == "decode.weight"
    space: dict[str, Any] = {"nn": nn, "torch": torch}
    exec(TIED, space)
    model = space["Tied"]()
    load_model(model, "m.safetensors")
    assert torch.equal(model.encode.weight, weights()["encode.weight"])
    assert model.encode.weight is model.decode.weight


def test_weights_that_are_parts_of_one_tensor_are_written_each(bz: Callable[..., Result]) -> None:
    halves = """
        both = torch.arange(6.0).reshape(2, 3)
        self.register_buffer("whole", both)
        self.register_buffer("upper", both[0])
        self.register_buffer("lower", both[1])
        self.register_buffer("across", both.t())
        self.register_buffer("empty", both[:0])
        self.register_buffer("also_empty", both[:0])
    """
    write_script(TIED.replace("\n    def forward", f"{halves}\n    def forward"), TIED_BUILD)
    train(bz)
    exported(bz, "m.safetensors")
    tensors = load_file("m.safetensors")
    assert (tensors["upper"].tolist(), tensors["lower"].tolist()) == ([0, 1, 2], [3, 4, 5])
    assert tensors["whole"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensors["across"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert (tensors["empty"].shape, tensors["also_empty"].shape) == ((0, 3), (0, 3))


def test_evaluation_weights_are_exported_unless_the_trained_ones_are_asked_for(bz: Callable[..., Result]) -> None:
    write_script(HALVING, BUILD.replace("loss_fn=", "plugins=[Halving()], loss_fn="))
    train(bz)
    bias = weights()["4.bias"]
    assert exported(bz, "m.safetensors")["weights"] == "evaluation"
    tensors = load_file("m.safetensors")
    assert torch.equal(tensors["4.bias"], bias / 2)
    assert torch.equal(tensors["4.weight"], weights()["4.weight"])
    assert metadata_of("m.safetensors")["weights"] == "evaluation"
    assert exported(bz, "trained.safetensors", "--weights", "trained")["weights"] == "trained"
    assert torch.equal(load_file("trained.safetensors")["4.bias"], bias)
    exported(bz, "m.pt2")
    inputs = torch.rand(5, 64)
    model = make_model().eval()
    model.load_state_dict(tensors)
    assert torch.equal(torch.export.load("m.pt2").module()(inputs), model(inputs))


def test_program_runs_without_the_script_for_any_batch_size(bz: Callable[..., Result]) -> None:
    write_script()
    train(bz, "--set", "training.precision=bf16")
    record = exported(bz, "m.pt2")
    size = Path("m.pt2").stat().st_size
    results = {"inputs": [[32, 64]], "is_dynamic": True, "difference": 0.0, "size_bytes": size}
    assert record == {**ABOUT, "output": "m.pt2", **results}
    extra = {"bz.json": ""}
    program = torch.export.load("m.pt2", extra_files=extra).module()
    assert json.loads(extra["bz.json"]) == {"bz_version": "0.1.0", **ABOUT}
    model = make_model().eval()
    model.load_state_dict(weights())
    for num_samples in (1, 2, 33):
        inputs = torch.rand(num_samples, 64)
        assert torch.equal(program(inputs), model(inputs))
    lines = bz("export", "--output", "m.pt2", "--force").stdout.splitlines()
    assert lines[1].startswith("Wrote a program to m.pt2, ")
    assert lines[1].endswith(
        "for inputs of 32 x 64 and any batch size. Loaded again, its outputs are those of the model "
        "(largest difference 0)."
    )


WITH_LABELS = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, pixels, labels=None, scale=None):
        logits = self.layer(pixels)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}

def build(hyperparameters):
    model = Net()
    batches = [{"pixels": images[i:i + 20], "labels": labels[i:i + 20]} for i in range(0, 520, 20)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return TrainingSpec(model=model, optimizer=optimizer, loss_fn=None, training_loader=batches[:13])
"""


def test_labels_are_no_input_of_a_program(bz: Callable[..., Result]) -> None:
    write_script(WITH_LABELS)
    train(bz)
    assert exported(bz, "m.pt2")["inputs"] == [[20, 64]]
    outputs = torch.export.load("m.pt2").module()(pixels=torch.rand(3, 64))
    assert outputs["logits"].shape == (3, 10)


def test_program_takes_what_an_own_step_calls_the_model_with(bz: Callable[..., Result]) -> None:
    step = """
    def validation_step(context, batch):
        return context.loss_fn(context.model(batch[0] * 2), batch[1])
    """
    write_script(BUILD.replace("(validation_set, batch_size=32)", "(validation_set, batch_size=1)"), step)
    train(bz)
    assert exported(bz, "m.pt2")["inputs"] == [[2, 64]]  # torch.export would take one sample for a constant
    step = step.replace("context.model(batch[0] * 2)", "context.model[1:](context.model[0](batch[0]))")
    write_script(BUILD, step)
    result = bz("export", "--output", "n.pt2")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("The validation_step does not call the model as a whole")
    assert not Path("n.pt2").exists()


FIXED = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, inputs):
        {code}
        return self.layer(inputs)
"""


def test_model_for_one_batch_size_is_exported_for_that(bz: Callable[..., Result]) -> None:
    code = FIXED.format(code="inputs = inputs.reshape(32, 64)")
    build = TIED_BUILD.replace("Tied()", "Net()").replace("batch_size=32", "drop_last=True, batch_size=32")
    write_script(code, build)
    train(bz)
    record = exported(bz, "m.pt2")
    assert (record["is_dynamic"], record["difference"]) == (False, 0.0)
    assert torch.export.load("m.pt2").module()(torch.rand(32, 64)).shape == (32, 10)
    text = bz("export", "--output", "m.pt2", "--force").stdout
    assert "for inputs of 32 x 64 and batches of this size only." in text


def test_model_that_cannot_be_exported_is_one_sentence_with_what_to_do(
    bz_process: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    code = FIXED.format(code="inputs = inputs * 2 if inputs.sum() > 0 else inputs")
    write_script(code, TIED_BUILD.replace("Tied()", "Net()"))
    assert bz_process("train", "--no-plugins").returncode == 0
    done = bz_process("export", "--output", "m.pt2")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("The model cannot be exported: GuardOnDataDependentSymNode: Could not guard on")
    assert "`forward` must not branch on their values" in done.stderr
    assert done.stderr.endswith("Or export the weights alone: --output model.safetensors\n")
    assert not list(Path().glob("*.pt2*"))


def test_program_that_gives_other_outputs_is_not_written(bz: Callable[..., Result]) -> None:
    code = FIXED.format(code="inputs = inputs + torch.rand_like(inputs)")
    write_script(code, TIED_BUILD.replace("Tied()", "Net()"))
    train(bz)
    result = bz("export", "--output", "m.pt2")
    assert result.exit_code == 1
    assert result.stderr.startswith("The exported program gives other outputs than the model: they differ by up to ")
    assert not list(Path().glob("*.pt2*"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--output", "m.onnx"], "'m.onnx' must end in .safetensors for the weights or .pt2 for a program."),
        (["--output", "there/m.pt2"], "there is no folder there; make it first."),
        (["--output", "m.pt2"], "m.pt2 exists already; take another name, or replace it with `--force`."),
    ],
    ids=["suffix", "no folder", "exists"],
)
def test_wrong_output_is_one_sentence(arguments: list[str], sentence: str, bz: Callable[..., Result]) -> None:
    write_script()
    train(bz)
    Path("m.pt2").write_text("precious")
    result = bz("export", *arguments)
    assert (result.exit_code, result.stderr) == (2, f"`--output`: {sentence}\n")
    assert Path("m.pt2").read_text() == "precious"


@pytest.mark.parametrize("option", ["--script", "--config", "--set", "--device"])
def test_option_without_effect_is_refused(option: str, bz: Callable[..., Result]) -> None:
    write_script()
    train(bz)
    value = "training.epochs=2" if option == "--set" else "cpu"
    result = bz("export", "--output", "m.safetensors", option, value)
    assert result.exit_code == 2
    assert result.stderr == (
        f"`{option}` has no effect on .safetensors, which come from the checkpoint alone; leave it out.\n"
    )


def test_missing_safetensors_is_one_sentence_with_the_command(
    bz: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_script()
    train(bz)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "safetensors" else object())
    result = bz("export", "--output", "m.safetensors")
    assert (result.exit_code, result.stderr) == (
        2,
        "`--output`: .safetensors needs the package safetensors; install it with: pip install 'bz-core[safetensors]'\n",
    )


def test_evaluation_weights_of_another_model_are_refused(bz: Callable[..., Result]) -> None:
    wrong = HALVING.replace('{"4.bias": context', '{"4.bias": torch.zeros(3)} if context.epoch else {"4.bias": context')
    write_script(wrong, BUILD.replace("loss_fn=", "plugins=[Halving()], loss_fn="))
    train(bz)
    sentence = f"The evaluation weights in {STATE} are of another model: "
    for arguments in (["export", "--output", "m.safetensors"], ["export", "--output", "m.pt2"], ["validate"]):
        result = bz(*arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith(sentence)
