"""A small causal transformer over symbols (Vaswani et al. 2017; pre-norm, Xiong et al. 2020).

Attention is made of linear layers and torch's own kernel, so that Opacus finds only layers whose
per-example gradients it knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from conf.errors import FedproofError
from task.base import ModelSpec
from task.models._symbols import require_symbols
from task.options import real, whole


class Block(nn.Module):
    """Causal self-attention, then a feed-forward net, each added to its input."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, length, width) to the same shape."""
        x = x + self.dropout(self._attend(self.attention_norm(x)))
        return cast(Tensor, x + self.dropout(self.feed_forward(x)))

    def _attend(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        # (3, n, heads, length, width per head)
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return cast(Tensor, self.project(attended.transpose(1, 2).reshape(n, length, width)))


class CharTransformer(nn.Module):
    """Embeddings of symbols and places, blocks, and one logit per symbol at every place."""

    def __init__(self, spec: ModelSpec, width: int, heads: int, layers: int, dropout: float):
        super().__init__()
        self.symbols = nn.Embedding(spec.vocabulary, width)
        self.places = nn.Embedding(spec.input_shape[0], width)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map symbols (n, length) to logits (n, length, outputs)."""
        # Places per example, not per batch: per-example gradients need the first axis.
        places = torch.arange(x.shape[1], device=x.device).expand_as(x)
        hidden = self.blocks(self.symbols(x) + self.places(places))
        return cast(Tensor, self.output(self.norm(hidden)))


def build(options: Mapping[str, Any], spec: ModelSpec) -> nn.Module:
    """Build from ``width``, ``heads``, ``layers`` and ``dropout``.

    Raises
    ------
    FedproofError
        If the inputs are no symbols, or the heads do not divide the width.
    """
    require_symbols("char_transformer", spec)
    width, heads, layers = (
        whole(options, f"model.{key}", 1) for key in ("width", "heads", "layers")
    )
    if width % heads:
        raise FedproofError(f"model.heads={heads} must divide model.width={width}.")
    return CharTransformer(spec, width, heads, layers, real(options, "model.dropout", below=1))
