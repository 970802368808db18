"""`bz predict` writes what the model says, whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from digit_runs import BUILD, train, write_script
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

STATE = "runs/a/state/epoch_2_step_26.pth"
MODEL = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, {inputs}):
        logits = self.layer(pixels)
        return {outputs}

def build(hyperparameters):
    torch.manual_seed(0)
    model = Net()
    return TrainingSpec(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=None,
        training_loader={batches}[:8],
        validation_loader={batches}[8:11],
    )
"""
MAPPINGS = '[{"pixels": images[i:i + 20], "labels": labels[i:i + 20]} for i in range(0, 240, 20)]'
LOSS = "nn.functional.cross_entropy(logits, labels)"


@pytest.fixture(autouse=True)
def _own_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])


def predicted(bz: Callable[..., Result], output: str, *arguments: str) -> dict[str, Any]:
    """Return what `bz predict --json` prints."""
    result = bz("predict", "--output", output, *arguments, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert isinstance(record, dict)
    return record


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.from_numpy(data.data).float() / 16.0, torch.from_numpy(data.target)


def expected_outputs(inputs: torch.Tensor, batch_size: int = 32) -> torch.Tensor:
    """Return what the model of `BUILD` says at the end of the run."""
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))
    model.load_state_dict(torch.load(STATE, weights_only=True)["model_state_dict"])
    with torch.no_grad():
        return torch.cat([model.eval()(part) for part in torch.split(inputs, batch_size)])


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir() if path.is_file())


def test_parquet_holds_outputs_targets_and_an_index_and_pandas_reads_it(bz: Callable[..., Result]) -> None:
    write_script()
    train(bz)
    record = predicted(bz, "p.parquet")
    images, labels = digits()
    table = pd.read_parquet("p.parquet")
    assert list(table.columns) == ["index", "output", "target"]
    assert table["index"].tolist() == list(range(150))
    assert table["target"].tolist() == labels[400:550].tolist()
    assert torch.equal(torch.tensor([row.tolist() for row in table["output"]]), expected_outputs(images[400:550]))
    assert record.pop("seconds") > 0
    about = {"run": "a", "checkpoint": STATE, "epoch": 2, "global_step": 26, "weights": "trained"}
    columns = {"index": "int64", "output": "list<item: float>", "target": "int64"}
    assert record == {**about, "loader": "validation", "output": "p.parquet", "samples": 150, "columns": columns}
    metadata = json.loads(pq.read_schema("p.parquet").metadata[b"bz"])
    assert metadata == {**about, "loader": "validation"}


def test_pt_holds_tensors_by_name(bz: Callable[..., Result]) -> None:
    write_script()
    train(bz)
    result = bz("predict", "a", "--output", "p.pt")
    images, labels = digits()
    table = torch.load("p.pt", weights_only=True)
    assert list(table) == ["output", "target"]
    assert torch.equal(table["output"], expected_outputs(images[400:550]))
    assert torch.equal(table["target"], labels[400:550])
    assert result.stdout.splitlines()[0] == f"Run a: {STATE}, epoch 2, step 26, trained weights."
    assert result.stdout.splitlines()[1].startswith("Wrote 150 rows to p.pt in ")
    assert result.stdout.splitlines()[1].endswith(": output (float32[10]), target (int64).")


LOADERS = """
unlabelled = DataLoader(images[550:600], batch_size=16)

def prediction_loader(hyperparameters):
    return DataLoader(TensorDataset(images[600:], labels[600:]), batch_size=hyperparameters["size"])

def test_loader():
    return [(images[550:552], ["one", "two"]), (images[552:553], ["three"])]

number = 3
"""


@pytest.mark.parametrize("suffix", ["parquet", "pt"])
def test_loader_is_chosen_by_name(suffix: str, bz: Callable[..., Result]) -> None:
    write_script(BUILD, LOADERS)
    train(bz, "--set", "hyperparameters.size=100")
    output = f"p.{suffix}"
    assert predicted(bz, output)["samples"] == 1197
    assert predicted(bz, output, "--force", "--loader", "training")["samples"] == 400
    assert predicted(bz, output, "--force", "--loader", "validation", "--limit-batches", "2")["samples"] == 64
    record = predicted(bz, output, "--force", "--loader", "unlabelled")
    assert (record["samples"], "target" in record["columns"]) == (50, False)
    record = predicted(bz, output, "--force", "--loader", "test_loader")
    if suffix == "pt":
        assert torch.load(output, weights_only=True)["target"] == ["one", "two", "three"]
    else:
        assert pd.read_parquet(output)["target"].tolist() == ["one", "two", "three"]
    known = "validation, training, unlabelled, prediction_loader, test_loader"
    wrong = {
        "test_loadr": f"train.py has no loader 'test_loadr'; there are {known}. Did you mean 'test_loader'?",
        "number": "'number' in train.py is a int; it must be iterable, as a DataLoader is, "
        "or a function that returns one.",
    }
    for name, sentence in wrong.items():
        result = bz("predict", "--output", output, "--force", "--loader", name)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, f"`--loader`: {sentence}")


def test_training_data_are_predicted_in_the_order_of_a_shuffled_loader(bz: Callable[..., Result]) -> None:
    write_script()
    train(bz)
    predicted(bz, "one.pt", "--loader", "training")
    predicted(bz, "two.pt", "--loader", "training")
    one, two = torch.load("one.pt"), torch.load("two.pt")
    assert torch.equal(one["target"], two["target"])
    assert not torch.equal(one["target"], digits()[1][:400])
    assert torch.equal(one["target"].sort().values, digits()[1][:400].sort().values)


@pytest.mark.parametrize(
    ("outputs", "columns"),
    [
        (f'{{"loss": {LOSS}, "logits": logits, "hidden": (pixels, None), "cache": object()}}', ["logits", "hidden_0"]),
        (f"Output({LOSS}, logits)", ["logits"]),
        (f"Named({LOSS}, logits)", ["logits"]),
        (f"dict(loss={LOSS}, index=logits, target=logits)", ["output_index", "output_target"]),
    ],
    ids=["mapping", "dataclass", "named tuple", "taken names"],
)
def test_parts_of_an_output_become_columns(outputs: str, columns: list[str], bz: Callable[..., Result]) -> None:
    kinds = """
    from collections import namedtuple
    from dataclasses import dataclass

    @dataclass
    class Output:
        loss: object
        logits: object

    Named = namedtuple("Named", ["loss", "logits"])
    """
    code = MODEL.format(inputs="pixels, labels", outputs=outputs, batches=MAPPINGS)
    write_script(kinds, code)
    train(bz)
    predicted(bz, "p.pt")
    table = torch.load("p.pt", weights_only=True)
    assert list(table) == [*columns, "target"]
    assert table[columns[0]].shape == (60, 10)
    assert torch.equal(table["target"], digits()[1][160:220])
    predicted(bz, "p.parquet")
    assert list(pd.read_parquet("p.parquet").columns) == ["index", *columns, "target"]


def test_what_has_no_row_for_each_sample_is_named_once(bz: Callable[..., Result]) -> None:
    outputs = f'{{"loss": {LOSS}, "logits": logits, "scale": logits.mean(), "cache": object()}}'
    write_script(MODEL.format(inputs="pixels, labels", outputs=outputs, batches=MAPPINGS))
    train(bz)
    result = bz("predict", "--output", "p.pt")
    assert result.stderr.splitlines() == [
        "'scale' of the model's output is a single number and is left out",
        "'cache' of the model's output is a object and is left out",
    ]


def test_outputs_of_an_own_step_are_written(bz: Callable[..., Result]) -> None:
    step = """
    def validation_step(context, batch):
        images, labels = batch
        outputs = context.model(images).argmax(1)
        return StepResult(torch.tensor(0.0), outputs.to(torch.bfloat16), labels == 3)
    """
    write_script(BUILD, step)
    train(bz)
    predicted(bz, "p.pt")
    predicted(bz, "p.parquet")
    images, labels = digits()
    table, frame = torch.load("p.pt", weights_only=True), pd.read_parquet("p.parquet")
    outputs = expected_outputs(images[400:550]).argmax(1)
    assert table["output"].dtype == torch.bfloat16
    assert torch.equal(table["output"].long(), outputs)
    assert frame.dtypes.astype(str).tolist() == ["int64", "float32", "bool"]
    assert frame["output"].tolist() == outputs.tolist()
    assert frame["target"].tolist() == (labels[400:550] == 3).tolist()


def test_rows_of_different_lengths_and_more_dimensions_fit_into_parquet_alone(bz: Callable[..., Result]) -> None:
    step = """
    def validation_step(context, batch):
        outputs = context.model(batch[0])
        length = 4 if batch[0].shape[0] == 32 else 6
        rows = outputs[:, :length].reshape(-1, 2, length // 2)
        return StepResult(torch.tensor(0.0), rows.transpose(1, 2))
    """
    write_script(BUILD, step)
    train(bz)
    predicted(bz, "p.parquet")
    images, _ = digits()
    rows = pq.read_table("p.parquet")["output"].to_pylist()
    outputs = expected_outputs(images[400:550])
    assert rows[0] == outputs[0, :4].reshape(2, 2).t().tolist()
    assert rows[-1] == outputs[-1, :6].reshape(2, 3).t().tolist()
    result = bz("predict", "--output", "p.pt")
    assert result.exit_code == 1
    assert result.stderr == (
        "'output' is (22, 3, 2) in one batch and (32, 2, 2) in the first; "
        "a .pt file needs the same shape for all samples, a .parquet file does not.\n"
    )
    assert files() == ["p.parquet", "train.py"]


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        ("torch.tensor(0.0)", "The validation_step gave no outputs; let it return"),
        (
            "StepResult(torch.tensor(0.0), torch.tensor(1.0))",
            "The model's output, a Tensor, holds no tensor with a row",
        ),
        ("StepResult(torch.tensor(0.0), batch[0], batch[1][:-1])", "'target' has 31 rows and 'output' 32; predictions"),
        ("StepResult(torch.tensor(0.0), batch[0].cfloat())", "'output' is complex64, which Parquet cannot hold; write"),
        (
            "StepResult(torch.tensor(0.0), batch[0] if len(batch[0]) == 32 else {'x': batch[0]})",
            "A batch gives x, the first one gave output; each batch must have the same outputs.",
        ),
        (
            "StepResult(torch.tensor(0.0), batch[0] if len(batch[0]) == 32 else batch[1])",
            "'output' is int64 in one batch and list<item: float> in the first; a column needs the same type",
        ),
    ],
    ids=["no outputs", "no rows", "other length", "complex", "other names", "other type"],
)
def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing_behind(
    result: str, sentence: str, bz: Callable[..., Result]
) -> None:
    write_script()
    train(bz)
    write_script(BUILD, f"def validation_step(context, batch):\n    return {result}\n")
    failed = bz("predict", "--output", "p.parquet")
    assert failed.exit_code == 1
    assert failed.stderr.splitlines()[-1].startswith(sentence)
    assert files() == ["train.py"]


def test_error_of_the_model_leaves_nothing_behind(bz: Callable[..., Result]) -> None:
    write_script()
    train(bz)
    step = """
    def validation_step(context, batch):
        if len(batch[0]) == 22:
            raise ValueError("the last batch")
        return StepResult(torch.tensor(0.0), batch[0])
    """
    write_script(BUILD, step)
    Path("p.parquet").write_text("precious")
    result = bz("predict", "--output", "p.parquet", "--force")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1,
        "The prediction failed: ValueError: the last batch",
    )
    assert Path("p.parquet").read_text() == "precious"
    assert files() == ["p.parquet", "train.py"]


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signal_leaves_nothing_behind(
    number: str, code: int, bz: Callable[..., Result], bz_process: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    write_script()
    train(bz)
    step = f"""
    import os, signal

    def validation_step(context, batch):
        os.kill(os.getpid(), signal.{number})
        return StepResult(torch.tensor(0.0), context.model(batch[0]))
    """
    write_script(BUILD, step)
    assert bz_process("predict", "--output", "p.parquet").returncode == code
    assert files() == ["train.py"]


def test_file_that_exists_is_not_replaced_unless_it_is_asked_for(bz: Callable[..., Result]) -> None:
    write_script()
    train(bz)
    Path("p.pt").write_text("precious")
    result = bz("predict", "--output", "p.pt")
    assert (result.exit_code, result.stderr) == (
        2,
        "`--output`: p.pt exists already; take another name, or replace it with `--force`.\n",
    )
    assert Path("p.pt").read_text() == "precious"
    predicted(bz, "p.pt", "--force")
    assert list(torch.load("p.pt")) == ["output", "target"]


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("p.csv", "`--output`: 'p.csv' must end in .parquet or .pt, which says what is written."),
        ("there/p.pt", "`--output`: there is no folder there; make it first."),
        ("runs", "`--output`: runs is a folder; name a file."),
    ],
    ids=["suffix", "no folder", "folder"],
)
def test_output_that_cannot_be_written_is_one_sentence(output: str, sentence: str, bz: Callable[..., Result]) -> None:
    write_script()
    train(bz)
    result = bz("predict", "--output", output)
    assert (result.exit_code, result.stderr) == (2, f"{sentence}\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("suffix", ["parquet", "pt"])
def test_full_disk_is_one_sentence(suffix: str, bz_process: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
        f"sys.argv = ['bz', 'predict', '--output', 'p.{suffix}']; from bz.cli.app import main; main()"
    )
    write_script()
    assert bz_process("train", "--no-plugins", "--name", "a").returncode == 0
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"p.{suffix} cannot be written: File too large.\n")
    assert files() == ["train.py"]


def test_missing_pyarrow_is_one_sentence_with_the_command(
    bz: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_script()
    train(bz)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = bz("predict", "--output", "p.parquet")
    assert (result.exit_code, result.stderr) == (
        2,
        "`--output`: Parquet needs pyarrow; install it with: pip install 'bz-core[parquet]', or write a .pt file.\n",
    )
    assert predicted(bz, "p.pt")["samples"] == 150


def test_parquet_is_written_in_groups_of_rows(bz: Callable[..., Result]) -> None:
    many = "prediction_loader = [(images[:1000].repeat(5, 1), labels[:1000].repeat(5))] * 4\n"
    write_script(BUILD, many)
    train(bz)
    assert predicted(bz, "p.parquet")["samples"] == 20000
    file = pq.ParquetFile("p.parquet")
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [10000, 10000]
    table = file.read()
    assert table["index"].to_pylist() == list(range(20000))
    assert table["target"].to_pylist()[12345] == digits()[1][345].item()


WITHOUT_NUMPY = """
import sys

class Finder:
    @staticmethod
    def find_spec(name, *arguments):
        return None if name.partition(".")[0] == "numpy" else finder.find_spec(name, *arguments)

finder = sys.meta_path[-1]
sys.meta_path[-1] = Finder
sys.argv = ["bz", *sys.argv[1:]]
from bz.cli.app import main
main()
"""


def test_needs_no_numpy() -> None:
    Path("train.py").write_text("from bz.testing import tiny_spec\ndef build():\n    return tiny_spec()\n")
    for arguments in (["train", "--no-plugins"], ["validate"], ["predict", "--output", "p.parquet"]):
        command = [sys.executable, "-W", "ignore", "-c", WITHOUT_NUMPY, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert pq.read_table("p.parquet").num_rows == 12


def test_history_of_a_run_is_a_table_for_pandas() -> None:
    from bz.testing import tiny_spec
    from bz.testing import train as train_tiny

    result = train_tiny(tiny_spec(), epochs=3)
    table = pd.DataFrame(result.history)
    assert list(table.columns) == ["epoch", "global_step", "training_loss", "validation_loss"]
    assert table["epoch"].tolist() == [1, 2, 3]
    assert table["validation_loss"].iloc[-1] == result.validation_loss
