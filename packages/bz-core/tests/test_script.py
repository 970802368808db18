"""Running the user's script: both of its forms, and every way in which it can be wrong."""

import pickle
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from bz.errors import ScriptError
from bz.script import LoadedScript, load_script, user_traceback

OBJECTS = """\
import torch
model = torch.nn.Linear(2, 1)
loss_fn = torch.nn.functional.mse_loss
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
training_loader = [(torch.zeros(4, 2), torch.zeros(4, 1))]
"""
BUILD = """\
import torch
from bz.spec import TrainingSpec

def build(hyperparameters):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=hyperparameters["lr"])
    return TrainingSpec(model, optimizer, torch.nn.functional.mse_loss, [])
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write(text: str, name: str = "train.py") -> Path:
    path = Path(name)
    path.write_text(textwrap.dedent(text))
    return path


def load(text: str, **hyperparameters: object) -> LoadedScript:
    return load_script(write(text), hyperparameters)


def refusal(text: str, **hyperparameters: object) -> ScriptError:
    with pytest.raises(ScriptError) as caught:
        load(text, **hyperparameters)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def test_build_gets_the_hyperparameters_and_gives_the_spec() -> None:
    script = load(BUILD, lr=0.5)
    assert script.spec.optimizer.param_groups[0]["lr"] == 0.5
    assert script.spec.hyperparameters == {"lr": 0.5}
    assert script.notices == ()


def test_steps_beside_build_are_those_of_the_script() -> None:
    steps = "\ndef training_step(context, batch): return None\ndef validation_step(batch): return None"
    script = load(BUILD + steps, lr=1)
    assert script.spec.training_step is script.module.training_step
    assert script.spec.validation_step is None, "it takes less, as a hook may"


def test_step_beside_build_that_is_marked_as_a_hook_stays_one() -> None:
    marked = "\nfrom bz import hookimpl\n@hookimpl\ndef training_step(context, batch): return None"
    assert load(BUILD + marked, lr=1).spec.training_step is None


def test_build_gets_the_defaults_of_the_module_under_the_settings() -> None:
    script = load("hyperparameters = {'lr': 0.1, 'size': 3}\n" + BUILD, lr=0.5)
    assert script.spec.hyperparameters == {"lr": 0.5, "size": 3}


def test_build_may_say_which_hyperparameters_it_made_of_them() -> None:
    script = load(BUILD.replace("mse_loss, []", "mse_loss, [], hyperparameters={'lr': 1, 'a': 2}"), lr=0.5, b=3)
    assert script.spec.hyperparameters == {"lr": 1, "a": 2, "b": 3}


@pytest.mark.parametrize("parameters", ["", "h", "h=None", "h, verbose=False", "*args", "hyperparameters, /"])
def test_build_may_take_the_hyperparameters_or_nothing(parameters: str) -> None:
    script = load(f"{BUILD}\ndef other({parameters}): return _build({{'lr': 1}})\n_build, build = build, other")
    assert script.spec.optimizer.param_groups[0]["lr"] == 1


def test_names_at_module_level_give_the_spec() -> None:
    script = load(OBJECTS + "validation_loader = []\nplugins = [object()]\nmetrics = None\n")
    assert script.spec.model is script.module.model
    assert script.spec.validation_loader == []
    assert len(script.spec.plugins) == 1
    assert script.spec.lr_scheduler is None


def test_settings_win_over_the_hyperparameters_of_the_module_and_say_that_it_is_late() -> None:
    script = load(OBJECTS + "hyperparameters = {'lr': 0.1, 'size': 3}", lr=0.5, size=3)
    assert script.spec.hyperparameters == {"lr": 0.5, "size": 3}
    assert script.notices == (
        (
            "train.py builds its objects at module level, so `hyperparameters.lr` of the settings cannot change them; "
            "define build(hyperparameters) to use them."
        ),
    )


def test_modules_imported_under_an_optional_name_are_not_taken_for_it() -> None:
    write("x = 1", "metrics.py")
    assert load("import metrics\n" + OBJECTS).spec.metrics is None


def test_script_imports_its_neighbours_and_its_main_block_does_not_run(folder: Path) -> None:
    write("class Thing: pass", "my_plugins.py")
    text = OBJECTS + "from my_plugins import Thing\nif __name__ == '__main__':\n    raise SystemExit(5)\n"
    module = load(text).module
    assert module.Thing.__module__ == "my_plugins"
    assert module.__file__ == str(folder.resolve() / "train.py")
    assert sys.path[0] == str(folder.resolve())


def test_script_that_parses_arguments_does_not_see_those_of_bz(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bz", "train", "--epochs", "3"])
    assert load("import sys\nseen = sys.argv\n" + OBJECTS).module.seen == ["train.py"]
    assert sys.argv == ["bz", "train", "--epochs", "3"]


def test_loading_leaves_nothing_beside_the_script(folder: Path) -> None:
    load(OBJECTS)
    assert [path.name for path in folder.iterdir()] == ["train.py"]


def test_script_loaded_again_after_a_change_is_the_new_one() -> None:
    assert load(OBJECTS + "number = 1").module.number == 1
    assert load(OBJECTS + "number = 2").module.number == 2


def test_class_of_the_script_is_found_by_a_new_process() -> None:
    module = load(OBJECTS + "class Data:\n    size = 3\n").module
    code = "import pickle, sys; sys.path.insert(0, '.'); print(pickle.load(sys.stdin.buffer).size)"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(module.Data()), capture_output=True, check=True
    )
    assert done.stdout == b"3\n"


def test_loader_workers_that_are_spawned_can_read_the_data_of_the_script(folder: Path) -> None:
    write(
        """
        import torch
        class Data(torch.utils.data.Dataset):
            def __len__(self): return 2
            def __getitem__(self, index): return torch.zeros(2), torch.zeros(1)
        model = torch.nn.Linear(2, 1)
        loss_fn = optimizer = None
        training_loader = torch.utils.data.DataLoader(Data(), num_workers=1, multiprocessing_context="spawn")
        """
    )
    code = (
        "from pathlib import Path\nfrom bz.script import load_script\n"
        "if __name__ == '__main__':\n    print(len(list(load_script(Path('train.py'), {}).spec.training_loader)))"
    )
    Path("elsewhere").mkdir()
    main = write(code, "elsewhere/main.py")
    done = subprocess.run([sys.executable, str(main)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr


@pytest.mark.parametrize("name", ["random.py", "bz.py", "my-train.py", "train.v2.py", "__main__.py", "torch.py"])
def test_script_of_an_awkward_name_does_not_take_the_place_of_a_module(name: str) -> None:
    before = {module: sys.modules.get(module) for module in ("random", "bz", "torch", "__main__")}
    script = load_script(write(BUILD.replace("import torch\n", "import torch, bz.spec\n"), name), {"lr": 1})
    assert script.spec.hyperparameters == {"lr": 1}
    assert {module: sys.modules.get(module) for module in before} == before
    assert sys.modules[script.module.__name__] is script.module


def test_missing_script_names_its_neighbours() -> None:
    with pytest.raises(ScriptError, match=r"^There is no script 'train\.py'\. Run `bz init` for one to start from\.$"):
        load_script(Path("train.py"), {})
    write("", "experiment.py")
    with pytest.raises(ScriptError, match=r"^There is no script 'train\.py'\. In the same folder: experiment\.py\.$"):
        load_script(Path("train.py"), {})
    write("", "trian.py")
    with pytest.raises(ScriptError, match=r"^There is no script 'train\.py'\. Did you mean 'trian\.py'\?$"):
        load_script(Path("train.py"), {})


def test_path_that_is_no_script_says_what_it_is(folder: Path) -> None:
    with pytest.raises(ScriptError, match=r"is a folder; give the script in it, such as .*train\.py\.$"):
        load_script(folder, {})
    with pytest.raises(ScriptError, match=r"^bz\.json is no Python script; its name must end in \.py\.$"):
        load_script(write("{}", "bz.json"), {})
    with pytest.raises(ScriptError, match=r"cannot be read: File name too long\.$"):
        load_script(Path("x" * 300 + ".py"), {})
    with pytest.raises(ScriptError, match=r"cannot be read: .*null (byte|character in path)\.$"):
        load_script(Path("x\0.py"), {})


@pytest.mark.parametrize(
    ("text", "message", "cause"),
    [
        ("x = (\n", "train.py, line 1: '(' was never closed.", SyntaxError),
        ("\nraise ValueError('bad\\nvalue')", "train.py raised ValueError at train.py, line 2: bad value.", ValueError),
        ("raise KeyError", "train.py raised KeyError at train.py, line 1.", KeyError),
        ("import no_such", "train.py raised ModuleNotFoundError at train.py, line 1: No module named 'no_such'.",
         ModuleNotFoundError),
        ("import sys\nsys.exit(3)", "train.py called sys.exit(3); it must return to bz.", SystemExit),
        ("def build(h):\n    return h['lr']",
         "build() in train.py raised KeyError at train.py, line 2: 'lr'.", KeyError),
        ("def build(h):\n    exit()", "build() in train.py called sys.exit(None); it must return to bz.", SystemExit),
    ],
)  # fmt: skip
def test_failing_script_gets_one_sentence_and_keeps_its_error(
    text: str, message: str, cause: type[BaseException]
) -> None:
    error = refusal(text)
    assert str(error) == message
    assert type(error.__cause__) is cause
    assert "train" not in sys.modules or "build" in text


def test_error_in_a_neighbour_names_its_file() -> None:
    write("\n\nx = 1 +\n", "my_plugins.py")
    assert str(refusal("import my_plugins")) == "my_plugins.py, line 3: invalid syntax."
    write("\n1 / 0\n", "my_data.py")
    assert str(refusal("import my_data")) == (
        "train.py raised ZeroDivisionError at my_data.py, line 2: division by zero."
    )


def test_keyboard_interrupt_in_the_script_passes() -> None:
    with pytest.raises(KeyboardInterrupt):
        load("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load("def build(h): raise KeyboardInterrupt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has no model and no loss_fn and no optimizer and no training_loader."),
        ("model = loss_fn = optimizer = train_loader = 1",
         "it has no training_loader. Is `train_loader` meant as `training_loader`?"),
        ("net = criterion = optimizer = training_loader = 1",
         "it has no model and no loss_fn. Is `net` meant as `model`? Is `criterion` meant as `loss_fn`?"),
        ("def bild(h): pass\nmodel = optimizer = training_loader = 1",
         "it has no loss_fn. Is `bild` meant as `build`?"),
        ("import random as model\nloss_fn = optimizer = training_loader = 1", "it has no model."),
    ],
)  # fmt: skip
def test_script_without_the_names_says_which_are_missing(text: str, message: str) -> None:
    assert str(refusal(text)) == (
        f"train.py must define build(hyperparameters), or model, loss_fn, optimizer and training_loader; {message}"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("build = 3", "train.py: `build` must be a function build(hyperparameters), got 3."),
        ("def build(h): return 3", "build() in train.py must return a bz.TrainingSpec, got int."),
        ("def build(h): pass", "build() in train.py must return a bz.TrainingSpec, got NoneType."),
        ("def build(a, b): pass", ("train.py: build(a, b) must take the hyperparameters as its one parameter, a dict; "
         "write it as build(hyperparameters).")),
        ("def build(lr=0.1): pass", ("train.py: build(lr=0.1) must take the hyperparameters as its one parameter, "
         "a dict; write it as build(hyperparameters).")),
        ("def build(*, h): pass", ("train.py: build(*, h) must take the hyperparameters as its one parameter, a dict; "
         "write it as build(hyperparameters).")),
        ("hyperparameters = 3\ndef build(h): pass", "train.py: `hyperparameters` must be a dict, got int."),
        ("model = loss_fn = optimizer = training_loader = plugins = 1", "train.py: `plugins` must be a list, got int."),
    ],
)  # fmt: skip
def test_script_of_a_wrong_shape_says_what_is_accepted(text: str, message: str) -> None:
    assert str(refusal(text)) == message


def test_script_with_a_nul_character_gets_one_sentence() -> None:
    error = refusal("x = '\\0'\n\0")
    kinds = "SyntaxError|ValueError"  # the second before Python 3.11.4
    assert re.fullmatch(rf"train\.py raised ({kinds}): source code string cannot contain null bytes\.", str(error))


def test_user_traceback_has_the_frames_of_the_user_alone(folder: Path) -> None:
    write("def inner():\n    raise ValueError('deep')\n", "my_data.py")
    text = "import my_data\ndef build(h):\n    try:\n        my_data.inner()\n    except ValueError as error:\n"
    error = refusal(text + "        raise KeyError('outer') from error\n")
    assert error.__cause__ is not None
    shown = user_traceback(error.__cause__, Path("train.py"))
    without_marks = re.sub(r"^ +[~^]+\n", "", shown, flags=re.MULTILINE)
    assert without_marks.replace(f"{folder.resolve()}/", "") == textwrap.dedent(
        """\
        Traceback (most recent call last):
          File "train.py", line 4, in build
            my_data.inner()
          File "my_data.py", line 2, in inner
            raise ValueError('deep')
        ValueError: deep

        The above exception was the direct cause of the following exception:

        Traceback (most recent call last):
          File "train.py", line 6, in build
            raise KeyError('outer') from error
        KeyError: 'outer'
        """
    )


def test_user_traceback_of_an_import_has_no_frame_of_the_import_system() -> None:
    write("1 / 0", "my_data.py")
    error = refusal("import my_data")
    assert error.__cause__ is not None
    shown = user_traceback(error.__cause__, Path("train.py"))
    assert "importlib" not in shown
    assert "bz/script.py" not in shown
    assert shown.count("  File ") == 2


def test_user_traceback_keeps_what_the_user_called_into() -> None:
    error = refusal("import json\ndef build(h):\n    json.loads('{')\n")
    assert error.__cause__ is not None
    assert "json/decoder.py" in user_traceback(error.__cause__, Path("train.py"))


def test_importing_script_does_not_import_torch() -> None:
    code = "import sys, bz.script; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
