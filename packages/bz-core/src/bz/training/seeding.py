"""Random numbers of a run: seeding them all, and taking and restoring their state."""

from __future__ import annotations

import importlib.util
import random
import secrets
import sys
from typing import Any, Final

import torch

SEED_BITS: Final = 32


def draw_seed() -> int:
    """Return a seed from the operating system, 0 to 2**32 - 1."""
    return secrets.randbits(SEED_BITS)


def seed_everything(seed: int) -> None:
    """Seed Python, torch on every device, and NumPy where it is installed.

    NumPy takes seeds of 32 bits; it gets the lower bits of a larger one.
    """
    random.seed(seed)
    torch.manual_seed(seed)
    if importlib.util.find_spec("numpy") is not None:
        import numpy as np

        np.random.seed(seed % 2**SEED_BITS)  # noqa: NPY002 - the state that libraries and users share


def random_state() -> dict[str, Any]:
    """Return the state of every generator of this process, as plain values and tensors.

    NumPy is there only if it was imported; accelerators only if one was used.
    """
    version, words, gauss_next = random.getstate()
    state: dict[str, Any] = {
        "python": {"version": version, "words": list(words), "gauss_next": gauss_next},
        "torch": torch.get_rng_state(),
    }
    if "numpy" in sys.modules:
        state["numpy"] = _numpy_state()
    module = _accelerator_module()
    if module is not None:
        state["accelerator"] = [module.get_rng_state(index) for index in range(module.device_count())]
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` returned."""
    python = state["python"]
    random.setstate((python["version"], tuple(python["words"]), python["gauss_next"]))
    torch.set_rng_state(state["torch"])
    if "numpy" in state:
        _restore_numpy_state(state["numpy"])
    module = _accelerator_module()
    if module is not None:
        for index, device_state in enumerate(state.get("accelerator", [])[: module.device_count()]):
            module.set_rng_state(device_state, index)


def _numpy_state() -> dict[str, Any]:
    """Return NumPy's global state without NumPy's types, which `weights_only` does not read."""
    import numpy as np

    name, key, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 - the shared state
    return {
        "name": str(name),
        "key": [int(word) for word in key],
        "position": int(position),
        "has_gauss": int(has_gauss),
        "gauss": float(gauss),
    }


def _restore_numpy_state(state: dict[str, Any]) -> None:
    import numpy as np

    key = np.asarray(state["key"], dtype=np.uint32)
    np.random.set_state((state["name"], key, state["position"], state["has_gauss"], state["gauss"]))  # noqa: NPY002


def _accelerator_module() -> Any | None:
    """Return `torch.cuda` or its like if it holds random states worth keeping."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None or accelerator.type == "mps":
        return None if accelerator is None else _SingleDevice(torch.mps)
    module = torch.get_device_module(accelerator)
    return module if module.is_initialized() else None


class _SingleDevice:
    """Gives `torch.mps`, which knows no device numbers, the interface of `torch.cuda`."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def device_count(self) -> int:
        return 1

    def get_rng_state(self, _index: int) -> torch.Tensor:
        state: torch.Tensor = self._module.get_rng_state()
        return state

    def set_rng_state(self, state: torch.Tensor, _index: int) -> None:
        self._module.set_rng_state(state)
