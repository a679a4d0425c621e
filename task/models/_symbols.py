"""What models of symbol sequences ask of a task."""

from __future__ import annotations

from conf.errors import FedproofError
from task.base import ModelSpec


def require_symbols(model: str, spec: ModelSpec) -> None:
    """Refuse inputs that are not sequences of symbols."""
    if not spec.vocabulary or len(spec.input_shape) != 1:
        raise FedproofError(
            f"model={model} needs sequences of symbols (task=keyboard), not inputs of shape "
            f"{spec.input_shape}: choose another model."
        )
