"""Switches of torch that hold for the whole process, set for a session and put back after it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from bz.config.models import TrainingSettings

_CUBLAS_VARIABLE: Final = "CUBLAS_WORKSPACE_CONFIG"
_CUBLAS_WORKSPACE: Final = ":4096:8"
"""Without it cuBLAS may add up in another order each time; read when CUDA is used first.

https://docs.nvidia.com/cuda/cublas/#results-reproducibility
"""


@contextmanager
def backends(settings: TrainingSettings) -> Iterator[None]:
    """Hold torch to `training.deterministic` and `training.tf32`."""
    cublas, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    former = (cublas.allow_tf32, cudnn.allow_tf32, cudnn.benchmark)
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if settings.tf32 is not None:
        cublas.allow_tf32 = cudnn.allow_tf32 = settings.tf32
    if settings.deterministic:
        os.environ.setdefault(_CUBLAS_VARIABLE, _CUBLAS_WORKSPACE)
        torch.use_deterministic_algorithms(True)
        cudnn.benchmark = False
    try:
        yield
    finally:
        cublas.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = former
        torch.use_deterministic_algorithms(was_deterministic, warn_only=warns_only)
