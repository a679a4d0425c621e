"""Models without their random numbers, so that what they compute can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def without_randomness(module: nn.Module, run: Callable[[], object]) -> Iterator[None]:
    """Replace random numbers that a module draws by their means, inside.

    Parameters
    ----------
    module : nn.Module
        In training mode. Its layers of dropout and RReLU are switched off; its caller restores
        their modes.
    run : callable
        Computes something with the module. If that draws numbers although dropout layers are off,
        every operation is looked at, which is slow, and imports torch's compiler.
    """
    with ExitStack() as stack:
        for layer in module.modules():
            if isinstance(layer, nn.modules.dropout._DropoutNd | nn.RReLU):
                layer.training = False
            elif isinstance(layer, nn.RNNBase | nn.MultiheadAttention):
                stack.callback(setattr, layer, "dropout", layer.dropout)
                layer.dropout = 0.0
        before = _states()
        run()
        if not all(map(torch.equal, before, _states())):
            stack.enter_context(_Means())  # type: ignore[no-untyped-call]
        yield


def _states() -> list[torch.Tensor]:
    accelerators = torch.cuda.get_rng_state_all() if torch.cuda._initialized else []
    return [torch.get_rng_state(), *accelerators]


class _Means(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named = dict(kwargs or {})
        if mean := _MEANS.get(func.overloadpacket.__name__):
            return mean(func, args, named)
        # Of kernels that draw by themselves; `training` is that of a leaky ReLU with random slopes.
        fixed = {"dropout_p": 0.0} | ({"training": False} if "rrelu" in str(func) else {})
        for place, argument in enumerate(func._schema.arguments):
            if argument.name in fixed:
                named.pop(argument.name, None)
                if place < len(args):
                    args = (*args[:place], fixed[argument.name], *args[place + 1 :])
        return func(*args, **named)


def _constant(value: float) -> Callable[..., Any]:
    def fill(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return func(*args, **named).fill_(value)

    return fill


def _kept(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Fill with the probability, by which dropout divides."""
    values, *chance = args
    return values.fill_(chance[0] if chance else named.get("p", 0.5))


def _chances(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return args[0].clone()


def _undropped(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return args[0].clone(), torch.ones_like(args[0], dtype=torch.bool)


_MEANS: dict[str, Callable[..., Any]] = {
    "bernoulli_": _kept,
    "bernoulli": _chances,
    "native_dropout": _undropped,
    "uniform_": _constant(0.5),
    "rand": _constant(0.5),
    "rand_like": _constant(0.5),
    "randn": _constant(0.0),
    "randn_like": _constant(0.0),
    "normal_": _constant(0.0),
    "exponential_": _constant(1.0),
}
"""By operation. What else a module may draw makes it differ from itself, which is refused."""
