"""The class that plugins inherit from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from pydantic import BaseModel


class Plugin:
    """Base of plugins: a method with the name of a hook is called when the hook fires.

    Such a method takes one parameter, `context`, a `bz.TrainingContext`. The hooks and their order
    are in `bz.hookspecs`. A subclass need not call `super().__init__()`.

    Attributes:
        name: Name in the settings, logs and reports; by default made from the class name.
        required: Whether the run counts as incomplete (exit code 3) when this plugin fails.
        Config: Pydantic model of the settings; by default they are the parameters of `__init__`.
    """

    name: ClassVar[str] = ""
    required: ClassVar[bool] = False
    Config: ClassVar[type[BaseModel] | None] = None

    @classmethod
    def from_config(cls, config: BaseModel) -> Self:
        """Return an instance made from validated settings, by default field by field."""
        return cls(**{name: getattr(config, name) for name in type(config).model_fields})

    def state_dict(self) -> dict[str, Any]:
        """Return what this plugin needs to go on after a resume: plain Python values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned when the checkpoint was written."""
