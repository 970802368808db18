from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from bz.plugins.discovery import discover_plugins

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

SCRIPT = """
import torch
from bz import TrainingSpec

def build(hyperparameters):
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    inputs = torch.ones(8, 2)
    batches = list(zip(inputs.split(2), torch.zeros(8, 1).split(2)))
    return TrainingSpec(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=hyperparameters.get("lr", 0.1)),
        loss_fn=torch.nn.MSELoss(),
        training_loader=batches,
        validation_loader=batches[:1],
    )
"""
PLUGIN = """
from bz.plugins import Plugin

class PluginUnderTest(Plugin):
    def __init__(self, text="", fail_in_build=False):
        import torch, random
        torch.rand(3), random.random()
        if fail_in_build:
            raise RuntimeError(f"cannot be built with {text}")
        self.text = text
"""


@pytest.fixture(autouse=True)
def _own_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])


@pytest.fixture(autouse=True)
def _only_the_console_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out whatever else is installed beside bz-core and the console plugin."""
    others = {plugin.name for plugin in discover_plugins()} - {"console_out"}
    monkeypatch.setenv("BZ_DISABLE_PLUGINS", ",".join(others))


def running(result: Result) -> list[str]:
    """Return the plugins that ran, as the first line says."""
    names = result.stdout.partition(".")[0].removeprefix("Plugins: ")
    return names.split(", ")


@pytest.fixture
def script() -> Path:
    """A script that trains a tiny model in four batches."""
    path = Path("train.py")
    path.write_text(SCRIPT)
    return path


def in_script(path: Path, code: str) -> None:
    """Add code to the end of the script."""
    path.write_text(path.read_text() + dedent(code))


def files_here() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*"))


def run_json(name: str = "r") -> dict[str, Any]:
    record = json.loads(Path("runs", name, "run.json").read_text())
    assert isinstance(record, dict)
    return record


@pytest.mark.usefixtures("script")
def test_train_without_plugins_says_how_it_ended_and_where_the_run_is(bz: Callable[..., Result]) -> None:
    result = bz("train", "--epochs", "2", "--no-plugins", "--name", "r", "--seed", "7")
    assert (result.exit_code, result.stderr) == (0, "")
    first, closing, times = result.stdout.splitlines()
    assert re.fullmatch(r"Plugins: none\. Off: [a-z_, ]*console_out[a-z_, ]* \(no plugins were asked for\)\.", first)
    numbers = re.sub(r"\d+(\.\d+)?(e-\d+)?", "N", closing)
    assert numbers == "Completed: N epochs in N s, training loss N, validation loss N. The run is in runs/r."
    assert re.fullmatch(r"Time: \d+(\.\d)? s, of it ([a-z -]+ \d+ %(, )?)+\.", times)
    record = run_json()
    assert (record["status"], record["epochs"], record["seed"]) == ("completed", 2, 7)
    assert sum(record["time_usage"].values()) > record["seconds"] / 2
    assert "INFO bz.cli.session: training train.py with seed 7" in Path("runs/r/bz.log").read_text()


@pytest.mark.usefixtures("script")
def test_train_with_the_console_plugin_says_only_where_the_run_is(bz: Callable[..., Result]) -> None:
    lines = bz("train", "--name", "r").stdout.splitlines()
    assert lines[0].startswith("Plugins: console_out.")
    assert lines[-1] == "The run is in runs/r."
    assert not any(line.startswith("Completed") for line in lines)


@pytest.mark.usefixtures("script")
def test_json_is_alone_on_stdout(bz: Callable[..., Result], script: Path) -> None:
    in_script(script, "print('from the script')")
    result = bz("train", "--json", "--name", "r")
    record = json.loads(result.stdout)
    assert (record["status"], record["epochs"], record["global_step"], record["run_dir"]) == (
        "completed",
        1,
        4,
        "runs/r",
    )
    assert record["plugin_usage"][0]["name"] == "console_out"
    assert "from the script\nPlugins: console_out." in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentences"),
    [
        (["--epochs", "0"], ["`--epochs 0`: `training.epochs` must be at least 1, got 0."]),
        (["--epochs", "x"], ["Invalid value for '--epochs': 'x' is not a whole number. See: bz train --help"]),
        (["--device", "cuda:7"], ["`training.device` is 'cuda:7', which is not there; available: auto, cpu."]),
        (["--name", "../up"], ['`--name`: "../up" is no name for a run; accepted are up to 100 letters']),
        (["--plugin", "consol_out"], ["Unknown plugin 'consol_out'; installed: "]),
        (
            ["--plugin", "console_out", "--no-plugins"],
            ["`--plugin` and `--no-plugins` contradict each other; give one of them."],
        ),
        (
            ["--set", "plugins.console_out.config.colour=1", "--set", "metrics.acuracy.task=binary", "--device", "mps"],
            [
                "`training.device` is 'mps', which is not there",
                "`metrics.acuracy` is no metric of torchmetrics",
                "unknown key `plugins.console_out.config.colour`; accepted:",
            ],
        ),
        (["--epoch", "3"], ["No such option: --epoch (Possible options: --epochs). See: bz train --help"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
@pytest.mark.usefixtures("script")
def test_wrong_settings_and_options_are_named_together_and_nothing_is_written(
    bz: Callable[..., Result], arguments: list[str], sentences: list[str]
) -> None:
    result = bz("train", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert len(lines) == len(sentences)
    assert all(line.startswith(sentence) for line, sentence in zip(lines, sentences, strict=True)), result.stderr
    assert files_here() == ["train.py"]


def test_missing_script_is_one_sentence(bz: Callable[..., Result]) -> None:
    result = bz("train")
    assert result.exit_code == 2
    assert result.stderr == "There is no script 'train.py'. Run `bz init` for one to start from.\n"
    assert files_here() == []


def test_failing_script_shows_the_frames_of_the_user_and_one_sentence(bz: Callable[..., Result], script: Path) -> None:
    in_script(script, "def helper():\n    return 1 / 0\n\nhelper()\n")
    result = bz("train")
    assert result.exit_code == 2
    traceback, sentence = result.stderr.strip().rsplit("\n", 1)
    assert sentence.startswith("train.py raised ZeroDivisionError at train.py, line ")
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert "return 1 / 0" in traceback
    assert "bz/" not in traceback
    assert files_here() == ["train.py"]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("hyperparameters = 3", "train.py: `hyperparameters` must be a dict, got int."),
        ("build = None\ndel build", "train.py must define build(hyperparameters), or model, loss_fn"),
        ("def end_epoch(context, extra): ...", "Plugin 'train': end_epoch has a parameter 'extra'"),
        (
            "_b = build\ndef build(h):\n    s = _b(h)\n    s.training_loader = []\n    return s",
            "The training_loader is",
        ),
        ("_b = build\ndef build(h):\n    s = _b(h)\n    s.metrics = {'a': 3}\n    return s", "Metric 'a' is a int;"),
    ],
)
def test_script_that_cannot_be_trained_writes_nothing(
    bz: Callable[..., Result], script: Path, code: str, sentence: str
) -> None:
    in_script(script, code)
    result = bz("train")
    assert result.exit_code == 2
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
    assert files_here() == ["train.py"]


def test_error_in_training_shows_the_frames_of_the_user_and_where(bz: Callable[..., Result], script: Path) -> None:
    in_script(
        script,
        """
        def training_step(context, batch):
            if context.global_step == 5:
                raise ValueError("boom")
            return context.model(batch[0]).mean()

        _build = build
        def build(hyperparameters):
            spec = _build(hyperparameters)
            spec.training_step = training_step
            return spec
        """,
    )
    result = bz("train", "--epochs", "3", "--name", "r", "--no-plugins")
    assert result.exit_code == 1
    assert result.stderr.endswith("Training failed in epoch 2, after step 5: ValueError: boom\n")
    assert 'raise ValueError("boom")' in result.stderr
    assert "bz/training" not in result.stderr
    assert result.stdout.endswith("The run is in runs/r.\n")
    record = run_json()
    assert (record["status"], record["epochs"]) == ("failed", 1)
    assert record["reason"] == "Training failed in epoch 2, after step 5: ValueError: boom"
    log = Path("runs/r/bz.log").read_text()
    assert "ERROR bz.cli.closing: Training failed in epoch 2" in log
    assert "bz/training" in log


def test_loss_that_is_no_scalar_is_one_sentence_and_exit_code_1(bz: Callable[..., Result], script: Path) -> None:
    in_script(
        script,
        """
        _build = build
        def build(hyperparameters):
            spec = _build(hyperparameters)
            spec.loss_fn = lambda outputs, targets: outputs
            return spec
        """,
    )
    result = bz("train", "--name", "r", "--json")
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    assert json.loads(result.stdout)["status"] == "failed"


@pytest.mark.usefixtures("script")
def test_failing_plugin_is_one_line_on_stderr_and_a_traceback_in_the_log(
    bz: Callable[..., Result], install: Callable[..., None]
) -> None:
    install("bz-p", {"p": "p_module:PluginUnderTest"}, PLUGIN + "    def end_epoch(self, context): 1 / 0\n")
    result = bz("train", "--name", "r")
    assert result.exit_code == 0
    assert result.stderr == "plugin 'p' failed in end_epoch (epoch 1, step 4): ZeroDivisionError: division by zero\n"
    assert "Traceback (most recent call last)" in Path("runs/r/bz.log").read_text()


@pytest.mark.usefixtures("script")
def test_strict_plugins_end_the_run_at_the_first_failure(
    bz: Callable[..., Result], install: Callable[..., None]
) -> None:
    install("bz-p", {"p": "p_module:PluginUnderTest"}, PLUGIN + "    def end_epoch(self, context): 1 / 0\n")
    result = bz("train", "--name", "r", "--strict-plugins")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Stopped because plugin 'p' failed in end_epoch (epoch 1, step 4)")
    assert run_json()["status"] == "failed"


@pytest.mark.usefixtures("script")
def test_required_plugin_that_fails_is_exit_code_3(bz: Callable[..., Result], install: Callable[..., None]) -> None:
    code = PLUGIN + "    required = True\n    def end_epoch(self, context): raise OSError('disk full')\n"
    install("bz-p", {"p": "p_module:PluginUnderTest"}, code)
    result = bz("train", "--name", "r")
    assert result.exit_code == 3
    assert result.stderr.endswith("Plugin 'p' is required and failed.\n")
    assert run_json()["status"] == "completed"


@pytest.mark.usefixtures("script")
def test_broken_plugin_is_left_out_unless_the_settings_name_it(
    bz: Callable[..., Result], install: Callable[..., None]
) -> None:
    install("bz-p", {"p": "p_module:PluginUnderTest"}, "import nothing_like_this")
    result = bz("train", "--name", "r")
    assert result.exit_code == 0
    assert running(result) == ["console_out"]
    assert "Plugin 'p' of bz-p cannot be imported: " in result.stdout.splitlines()[0]
    assert "No module named 'nothing_like_this'" in result.stdout.splitlines()[0]
    named = bz("train", "--name", "s", "--set", 'plugins.p={"enabled": true}')
    assert named.exit_code == 2
    assert "No module named 'nothing_like_this'" in named.stderr
    assert not Path("runs/s").exists()


@pytest.mark.usefixtures("script")
def test_plugins_are_chosen_by_options_and_variables(
    bz: Callable[..., Result], install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("bz-p", {"p": "p_module:PluginUnderTest"}, PLUGIN)
    assert running(bz("train")) == ["console_out", "p"]
    only = bz("train", "--plugin", "p")
    assert running(only) == ["p"]
    assert "(only p asked for)" in only.stdout.splitlines()[0]
    without = bz("train", "--no-plugin", "p")
    assert "p" not in running(without)
    assert "p (left out as asked)" in without.stdout.splitlines()[0]
    monkeypatch.setenv("BZ_PLUGINS", "p")
    assert running(bz("train")) == ["p"]
    monkeypatch.setenv("BZ_DISABLE_PLUGINS", "p")
    assert running(bz("train")) == ["none"]


def test_hooks_in_the_script_and_its_plugins_run(bz: Callable[..., Result], script: Path) -> None:
    in_script(script, "def end_epoch(context):\n    print('epoch', context.epoch, 'ended')\n")
    result = bz("train", "--no-plugins", "--epochs", "2")
    assert result.stdout.splitlines()[0].startswith("Plugins: train.")
    assert "epoch 2 ended\n" in result.stdout


@pytest.mark.usefixtures("script")
def test_plugin_that_draws_random_numbers_while_it_is_built_changes_nothing(
    bz: Callable[..., Result], install: Callable[..., None], script: Path
) -> None:
    script.write_text(script.read_text().replace("    torch.manual_seed(0)\n", ""))
    without = json.loads(bz("train", "--json", "--seed", "3").stdout)
    install("bz-p", {"p": "p_module:PluginUnderTest"}, PLUGIN)
    with_plugin = json.loads(bz("train", "--json", "--seed", "3").stdout)
    assert [usage["name"] for usage in with_plugin["plugin_usage"]] == ["console_out", "p"]
    assert with_plugin["training_loss"] == without["training_loss"]


@pytest.mark.usefixtures("script")
def test_run_is_never_overwritten(bz: Callable[..., Result]) -> None:
    assert bz("train", "--name", "r").exit_code == 0
    before = Path("runs/r/run.json").read_bytes()
    again = bz("train", "--name", "r")
    assert again.exit_code == 2
    assert "runs/r exists already" in again.stderr
    assert Path("runs/r/run.json").read_bytes() == before


@pytest.mark.usefixtures("script")
def test_handlers_and_levels_are_as_before(bz: Callable[..., Result]) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    bz("train")
    bz("train", "--device", "cuda:7")
    assert (list(root.handlers), root.level) == before


def test_secrets_are_in_no_output_and_no_file(
    bz: Callable[..., Result],
    script: Path,
    install: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", "canary-1-from-environment")
    install(
        "bz-p",
        {"p": "p_module:PluginUnderTest"}, """
        import logging
        from bz.plugins import Plugin
        from pydantic import BaseModel, SecretStr

        class PConfig(BaseModel):
            password: str
            webaddress: SecretStr

        class PluginUnderTest(Plugin):
            Config = PConfig
            def __init__(self, password, webaddress):
                self.password = password
                self.webaddress = webaddress
            def end_epoch(self, context):
                logging.getLogger("p").warning("sent %s", self.password)
                raise ValueError(f"refused {self.password!r} {self.webaddress.get_secret_value()}")
        """,
    )  # fmt: skip
    in_script(script, "def end_training_session(context):\n    raise ValueError(repr(context.settings))\n")
    config = '{"password": "${SECRET}", "webaddress": "canary-2-by-type"}'
    result = bz("train", "--name", "r", "--set", f'plugins.p={{"config": {config}}}')
    assert result.exit_code == 0
    assert "sent **********" in result.stderr
    texts = [path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()]
    assert not [text for text in [result.output.encode(), *texts] if b"canary" in text]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bz", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the process made the file."""
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


SLOW = """
import pathlib, time
def start_training_batch(context):
    if context.global_step == 2:
        pathlib.Path("begun").touch()
    time.sleep(0.05)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_in_training_ends_the_run_properly(script: Path, number: signal.Signals, code: int) -> None:
    in_script(script, SLOW)
    process = start("train", "--epochs", "1000", "--name", "r", "--no-plugins")
    wait_for(Path("begun"), process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in out + err
    closing, _, command = out.splitlines()[-3:]
    assert closing.startswith(f"Interrupted ({number.name} received): ")
    assert command == "Resume with: bz train --resume r"
    assert run_json()["status"] == "interrupted"


def test_second_signal_ends_at_once(script: Path) -> None:
    in_script(script, SLOW.replace("time.sleep(0.05)", "time.sleep(0.05 if context.global_step < 2 else 60)"))
    process = start("train", "--epochs", "1000", "--name", "r", "--no-plugins")
    wait_for(Path("begun"), process)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=50)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert run_json()["status"] == "interrupted"


def test_ctrl_c_before_the_training_is_one_line(script: Path) -> None:
    in_script(script, "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\n")
    process = start("train")
    wait_for(Path("begun"), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "Interrupted.\n")
    assert not Path("runs").exists()


def test_reader_that_goes_away_does_not_end_the_training(script: Path) -> None:
    in_script(script, SLOW)
    process = start("train", "--epochs", "2", "--name", "r", "--no-plugins")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        assert stderr.read() == ""
    assert process.wait(timeout=60) == 0
    assert run_json()["status"] == "completed"


def test_project_of_init_trains_as_it_is(bz: Callable[..., Result]) -> None:
    bz("init")
    process = start("train", "--epochs", "3", "--name", "r")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1] == "The run is in runs/r."
    metrics = run_json()["validation_metrics"]
    assert isinstance(metrics, dict)
    assert metrics["accuracy"] > 0.9


def test_full_disk_for_the_log_is_one_line_and_the_training_goes_on(script: Path) -> None:
    in_script(
        script,
        """
        import logging

        def end_training_batch(context):
            logging.getLogger("mine").info("y" * 3000)
        """,
    )
    limited = f"trap '' XFSZ; ulimit -f 4; exec {sys.executable} -m bz train --no-plugins --name r"
    command = f"{limited} --set training.checkpoint_interval=0"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr.endswith("runs/r/bz.log cannot be written: [Errno 27] File too large\n")
    assert done.stderr.count("\n") == 1
    assert (done.returncode, run_json()["status"]) == (0, "completed")


@pytest.mark.usefixtures("script")
def test_max_steps_ends_a_run_that_goes_on_with_a_larger_number(bz: Callable[..., Result]) -> None:
    result = bz("train", "--max-steps", "6", "--no-plugins", "--name", "r")
    assert result.exit_code == 0
    assert "Completed (max_steps 6 reached): 2 epochs in" in result.stdout
    assert (run_json()["global_step"], run_json()["status"]) == (6, "completed")
    done = bz("train", "--resume", "r")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (
        0,
        "Run r has done all 6 steps; give --max-steps a larger number to go on.",
    )
    assert bz("train", "--resume", "r", "--max-steps", "10").exit_code == 0
    assert run_json()["global_step"] == 10
    assert bz("train", "--max-steps", "10", "--no-plugins", "--name", "whole").exit_code == 0
    assert run_json()["training_loss"] == run_json("whole")["training_loss"]
    assert run_json()["validation_loss"] == run_json("whole")["validation_loss"]


@pytest.mark.usefixtures("script")
def test_max_time_ends_a_run(bz: Callable[..., Result]) -> None:
    result = bz("train", "--max-time", "0.05 s", "--no-plugins", "--name", "r")
    assert result.exit_code == 0
    assert "Completed (max_time 0.05 s reached): " in result.stdout
    done = bz("train", "--resume", "r")
    assert done.stdout.splitlines()[-1] == "Run r has trained for 0.05 s; give --max-time a longer time to go on."
    wrong = bz("train", "--max-time", "5")
    assert (wrong.exit_code, wrong.stderr) == (
        2,
        '`--max-time 5`: `training.max_time` must be above 0 and written as "30 s", "10 min" or "8 h", got "5".\n',
    )


@pytest.mark.usefixtures("script")
def test_limit_batches_holds_for_training_and_validation(bz: Callable[..., Result]) -> None:
    result = bz("train", "--limit-batches", "3", "--no-plugins", "--name", "r")
    assert result.exit_code == 0
    assert run_json()["global_step"] == 3
    settings = run_json()["settings"]
    assert isinstance(settings, dict)
    assert settings["training"]["limit_train_batches"] == settings["training"]["limit_validation_batches"] == 3
    assert bz("train", "--resume", "r", "--epochs", "2").exit_code == 0
    assert run_json()["global_step"] == 6
    wrong = bz("train", "--limit-batches", "0")
    assert (wrong.exit_code, wrong.stderr) == (
        2,
        "`--limit-batches 0`: `training.limit_train_batches` must be at least 1, got 0.\n",
    )
