"""A recurrent language model over symbols (the architecture of LEAF's Shakespeare, smaller)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from task.base import ModelSpec
from task.models._symbols import require_symbols
from task.options import whole


class CharLSTM(nn.Module):
    """Embedding, LSTM, linear output at every place.

    ``dp`` takes Opacus' DPLSTM, whose gradients can be had per example; torch's fused one is
    some three times as fast. Both have the same parameters by the same names.
    """

    def __init__(self, symbols: int, outputs: int, sizes: tuple[int, int, int], dp: bool) -> None:
        super().__init__()
        embedding, hidden, layers = sizes
        self.embedding = nn.Embedding(symbols, embedding)
        self.lstm = _lstm(dp)(embedding, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, outputs)
        if dp:
            self.register_state_dict_post_hook(_drop_aliases)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_post_hook(_forgive_aliases)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """Map symbols (n, length) to logits (n, length, outputs)."""
        return cast(Tensor, self.output(self.lstm(self.embedding(x))[0]))


def build(options: Mapping[str, Any], spec: ModelSpec) -> nn.Module:
    """Build from ``embedding``, ``hidden``, ``layers`` and ``dp``.

    Raises
    ------
    FedproofError
        If the inputs are no symbols.
    """
    require_symbols("char_lstm", spec)
    sizes = tuple(whole(options, f"model.{key}", 1) for key in ("embedding", "hidden", "layers"))
    return CharLSTM(
        spec.vocabulary, spec.outputs, cast(tuple[int, int, int], sizes), bool(options["dp"])
    )


# Opacus' layer has each parameter under a name of its own and under torch's. Inside another module
# it saves both, and asks for both.
def _drop_aliases(module: Any, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    for alias in module.lstm.old_to_new:
        state.pop(f"{prefix}lstm.{alias}", None)


def _forgive_aliases(module: Any, keys: Any) -> None:
    aliases = {f"lstm.{alias}" for alias in module.lstm.old_to_new}
    keys.missing_keys[:] = [key for key in keys.missing_keys if key not in aliases]


def _lstm(dp: bool) -> Any:
    if not dp:
        return nn.LSTM
    from opacus.layers import DPLSTM  # Seconds to import.

    return DPLSTM
