"""How updates, and the model, are shortened: each ``compression=`` is a module of this package."""

from __future__ import annotations

from conf.schema import Settings
from task.compression._blocks import Blocks
from task.compression._cast import BF16, FP16
from task.compression.base import Compressor
from task.options import choice
from task.registry import find

BLOCK = 512
"""Values that share a scale where a model, and not an update, travels as int8."""
DOWN: dict[str, Compressor | None] = {
    "none": None, "fp16": FP16, "bf16": BF16, "int8": Blocks(8, BLOCK)
}  # fmt: skip
"""What the model itself can travel as: what needs to know no earlier model."""


def compressors_of(settings: Settings) -> tuple[Compressor, Compressor | None] | None:
    """Return what shortens updates, and what shortens the model, if anything; None without.

    Raises
    ------
    FedproofError
        If the settings are wrong.
    """
    options = settings.compression.options
    up = find(__name__, settings.compression.name).build(options)
    if up is None:
        return None
    assert isinstance(up, Compressor)
    return up, DOWN[choice(options, "compression.down", tuple(DOWN))]
