"""Weights for other programs, as safetensors, and models that run without their code, as `torch.export` programs."""

from __future__ import annotations

import importlib.util
import inspect
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch.export import Dim, ShapesCollection, export
from torch.utils._pytree import tree_leaves, tree_map  # what torch.export's own documentation imports

from bz.durable import replacing
from bz.errors import CheckpointError, ConfigError, TrainingError
from bz.training.disk import reported_disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch.export import ExportedProgram

    from bz.training.checkpoint import FoundCheckpoint
    from bz.training.evaluation import Evaluation

logger = logging.getLogger(__name__)

SUFFIXES: Final = (".safetensors", ".pt2")
RTOL: Final = 1e-4
ATOL: Final = 1e-5
"""How far an exported program, whose operations may be fused, may be from the model."""


def check_format(path: Path) -> None:
    """Refuse a file that cannot be written.

    Raises:
        ConfigError: If the suffix is none that is known, or safetensors is needed and not installed.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"`--output`: {str(path)!r} must end in .safetensors for the weights or .pt2 for a program.",
            option="--output",
        )
    needed = ("safetensors", "numpy")  # safetensors needs NumPy to write tensors of torch
    if path.suffix == ".safetensors" and not all(map(importlib.util.find_spec, needed)):
        raise ConfigError(
            "`--output`: .safetensors needs the package safetensors; "
            "install it with: pip install 'bz-core[safetensors]'",
            option="--output",
        )


def model_weights(
    found: FoundCheckpoint, other: Mapping[str, torch.Tensor] | None
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return the weights in a checkpoint by name, and the names of what is no tensor and was left out.

    Args:
        found: The checkpoint; its weights are changed in place, so that tied ones stay tied.
        other: Weights to have in place of those of the same name.

    Raises:
        CheckpointError: If there is a weight among these that the model does not have.
    """
    own: Mapping[str, Any] = found.state["model_state_dict"]
    for name, tensor in (other or {}).items():
        if name not in own or own[name].shape != tensor.shape:
            what = f"the model has no {name!r} of shape {tuple(tensor.shape)}"
            message = f"The evaluation weights in {found.path} are of another model: {what}."
            raise CheckpointError(message, path=found.path)
        own[name].copy_(tensor)
    weights = {name: value for name, value in own.items() if isinstance(value, torch.Tensor)}
    return weights, tuple(name for name in own if name not in weights)


def write_safetensors(weights: Mapping[str, torch.Tensor], path: Path, about: Mapping[str, Any]) -> int:
    """Write weights and return how many tensors the file holds.

    The format has no memory shared by two tensors: tied weights are written once, and the metadata
    say under which name, as `safetensors.torch.save_model` does.

    Args:
        weights: By name.
        path: The file.
        about: What the metadata say beside that.

    Raises:
        BzError: If the disk refuses.
    """
    from safetensors.torch import save

    tensors, aliases = _untie(weights)
    metadata = {"format": "pt", **{key: str(value) for key, value in about.items()}, **aliases}
    _write(path, save(tensors, metadata))
    return len(tensors)


def _write(path: Path, content: bytes | memoryview) -> None:
    with reported_disk_errors(path), replacing(path) as file:
        file.write(content)


def _untie(weights: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return tensors that share no memory, and for each name that was left out the one that holds the same."""
    tensors: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    names: dict[tuple[Any, ...], str] = {}
    storages: set[int] = set()
    for name, tensor in sorted(weights.items()):
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in names:
            aliases[name] = names[place]
            continue
        names[place] = name
        storage = tensor.untyped_storage().data_ptr()
        is_view = storage in storages
        storages.add(storage)
        tensors[name] = tensor.detach().clone() if is_view else tensor.detach()
    return {name: tensor.contiguous() for name, tensor in tensors.items()}, aliases


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What was written.

    Attributes:
        inputs: Shape of each tensor in the example, in the order of the call.
        is_dynamic: Whether it takes batches of any size.
        difference: The largest difference between an output of the file and of the model.
    """

    inputs: tuple[tuple[int, ...], ...]
    is_dynamic: bool
    difference: float


class _Call(NamedTuple):
    """What a model is called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All tensors in it that have a first dimension, however deep they lie."""
        leaves = tree_leaves((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim()]

    @property
    def batch_size(self) -> int | None:
        """Length of the first dimension of the first tensor."""
        return next((tensor.shape[0] for tensor in self.tensors), None)

    def doubled(self) -> _Call:
        """Return the call with each sample twice."""
        size = self.batch_size

        def double(leaf: Any) -> Any:
            is_batch = isinstance(leaf, torch.Tensor) and leaf.dim() > 0 and leaf.shape[0] == size
            return torch.cat([leaf, leaf]) if is_batch else leaf

        return _Call(*tree_map(double, (self.args, self.kwargs)))

    def outputs(self, model: Callable[..., Any]) -> list[torch.Tensor]:
        """Return all tensors that the model answers with."""
        leaves = tree_leaves(model(*self.args, **self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


class _CalledError(Exception):
    """Ends a step where the model is called."""

    def __init__(self, call: _Call) -> None:
        super().__init__("the model was called")
        self.call = call


def write_program(evaluation: Evaluation, path: Path, about: Mapping[str, Any]) -> Program:
    """Export the model as it is, in eval mode, and check that the file gives the same outputs.

    The example is what the model is called with for the first batch. Only inside `evaluation.using`.

    Raises:
        TrainingError: If the model cannot be exported, or its file gives other outputs.
        BzError: If the disk refuses.
    """
    model = evaluation.spec.model
    example = _example(evaluation)
    program, is_dynamic = _export(model, example)
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={"bz.json": json.dumps(about)})
    content.seek(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")  # said by torch 2.10 of its own buffer
        loaded = torch.export.load(content).module()
    calls = (example, example.doubled()) if is_dynamic else (example,)
    difference = max(_difference(call.outputs(loaded), call.outputs(model)) for call in calls)
    _write(path, content.getbuffer())
    shapes = tuple(tuple(tensor.shape) for tensor in example.tensors)
    return Program(inputs=shapes, is_dynamic=is_dynamic, difference=difference)


def _example(evaluation: Evaluation) -> _Call:
    """Return what the model is called with for the first batch, doubled if that is of one sample.

    torch.export takes a size of 1 for a constant.
    """
    model = evaluation.spec.model

    def stop(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _CalledError(_Call(args, kwargs))

    hook = model.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        evaluation.call(evaluation.example_batch())
    except _CalledError as called:
        example = _without_labels(model, called.call)
        return example.doubled() if example.batch_size == 1 else example
    finally:
        hook.remove()
    raise TrainingError(
        "The validation_step does not call the model as a whole, as context.model(...), so it is not known what the "
        "model takes."
    )


def _without_labels(model: torch.nn.Module, call: _Call) -> _Call:
    """Return the call without `labels`, from which a model computes its loss, if it can do without."""
    parameter = inspect.signature(model.forward).parameters.get("labels")
    if "labels" not in call.kwargs or parameter is None or parameter.default is not None:
        return call
    return _Call(call.args, {name: value for name, value in call.kwargs.items() if name != "labels"})


def _export(model: torch.nn.Module, example: _Call) -> tuple[ExportedProgram, bool]:
    """Return the program, and whether it takes batches of any size.

    Raises:
        TrainingError: If torch.export does not take the model.
    """
    shapes: Any = ShapesCollection()  # type: ignore[no-untyped-call]  # torch leaves it without types
    batch = Dim("batch")
    for tensor in example.tensors:
        if tensor.shape[0] == example.batch_size:
            shapes[tensor] = {0: batch}
    errors = []
    for dynamic_shapes in (shapes, None):
        try:
            with _silence():
                return export(model, *example, dynamic_shapes=dynamic_shapes), dynamic_shapes is not None
        except Exception as error:
            errors.append(error)
            logger.debug("torch.export refused the model", exc_info=error)
    raise TrainingError(
        f"The model cannot be exported: {_first_sentence(errors[-1])} torch.export follows the tensors through "
        "`forward` once, so `forward` must not branch on their values, nor do what is not torch's; "
        "see https://docs.pytorch.org/docs/stable/export.html. Or export the weights alone: --output model.safetensors"
    ) from errors[-1]


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what torch logs and prints on the way to an exception, such as whole graphs, from the terminal."""
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def _first_sentence(error: Exception) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line.rstrip('.')}." if line else f"{type(error).__name__}."


def _difference(outputs: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """Return the largest difference of two numbers.

    Raises:
        TrainingError: If it is larger than rounding explains, or the shapes are other ones.
    """
    shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (outputs, expected)]
    if shapes[0] != shapes[1]:
        raise TrainingError(f"The exported program gives outputs of shapes {shapes[0]}, the model {shapes[1]}.")
    pairs = list(zip(outputs, expected, strict=True))
    difference = max((_largest(one, other) for one, other in pairs), default=0.0)
    if not all(torch.allclose(one, other, rtol=RTOL, atol=ATOL, equal_nan=True) for one, other in pairs):
        raise TrainingError(
            f"The exported program gives other outputs than the model: they differ by up to {difference:.3g}. "
            "A model that draws random numbers in eval mode, or keeps a state, does so."
        )
    return difference


def _largest(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one.double() - other.double()).abs().nan_to_num().max().item() if one.numel() else 0.0
