"""Names of layers' values in a state dict."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import nn

from conf.errors import FedproofError

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def normalisation(module: nn.Module) -> frozenset[str]:
    """Return the names of what normalisation layers learn and count, BatchNorm's statistics too."""
    layers = [name for name, layer in module.named_modules() if isinstance(layer, _NORMS)]
    return _values_of(module, layers)


def last_layers(module: nn.Module, count: int) -> frozenset[str]:
    """Return the names of the values of the last layers with parameters, in order of building.

    Raises
    ------
    FedproofError
        If those are all there are.
    """
    layers = [
        name for name, layer in module.named_modules()
        if next(layer.parameters(recurse=False), None) is not None
    ]  # fmt: skip
    if count >= len(layers):
        raise FedproofError(
            f"personalization.layers={count} leaves nothing to share of a model with "
            f"{len(layers)} layers: choose fewer, or personalization=local."
        )
    return _values_of(module, layers[len(layers) - count :])


def _values_of(module: nn.Module, layers: Collection[str]) -> frozenset[str]:
    return frozenset(key for key in module.state_dict() if key.rpartition(".")[0] in layers)


@contextmanager
def frozen(module: nn.Module, names: Collection[str]) -> Iterator[None]:
    """Keep these parameters as they are inside: no gradient is computed for them."""
    still = [p for name, p in module.named_parameters() if name in names and p.requires_grad]
    for parameter in still:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in still:
            parameter.requires_grad_(True)
