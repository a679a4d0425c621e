"""Checkpoints: one safetensors file per run, written whole or not at all.

Nothing is pickled: tensors are tensors, the rest is JSON in the file's metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from conf.errors import FedproofError
from conf.seal import SEAL
from task.arrays import array_of, record_of, values_of
from task.atomic import atomic

CHECKPOINT = "checkpoint.safetensors"
_FACTS = "facts"
Tensors = dict[str, NDArray[Any]]


def save(path: Path, tensors: Tensors, facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able facts to `path`, atomically.

    Raises
    ------
    OSError
        If it cannot be written; what was there stays.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    contiguous = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    # ascontiguousarray makes a 0-d array 1-d; the shape must come back as it was.
    shaped = {key: value.reshape(tensors[key].shape) for key, value in contiguous.items()}
    # One entry: several come in any order, and equal models are to be equal files.
    told = json.dumps({_FACTS: dict(facts), SEAL: _digest(shaped, facts)})
    with atomic(path) as temporary:
        try:
            save_file(shaped, temporary, {"fedproof": told})
        except SafetensorError as error:
            raise OSError(str(error)) from None


def load(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Read what `save` wrote.

    Raises
    ------
    FedproofError
        If the file is missing, torn, not one of ours, or any bit of it has changed.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            told = dict(json.loads((file.metadata() or {})["fedproof"]))
    except FileNotFoundError:
        raise FedproofError(f"{path} does not exist: give a run directory of fedproof.") from None
    except (SafetensorError, LookupError, ValueError, TypeError, OSError, MemoryError) as error:
        raise FedproofError(
            f"{path} is damaged or not from fedproof ({type(error).__name__}): use another run."
        ) from None
    if not {_FACTS, SEAL} & told.keys():
        # Written before there were digests.
        return tensors, told
    facts = told.get(_FACTS)
    if not isinstance(facts, dict) or told.get(SEAL) != _digest(tensors, facts):
        raise FedproofError(f"{path} is damaged: it is not what was written; use another run.")
    return tensors, facts


def _digest(tensors: Tensors, facts: Mapping[str, Any]) -> str:
    """Hash names, types, shapes and values of tensors, and the facts beside them."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for key in sorted(tensors):
        value = np.ascontiguousarray(tensors[key])
        digest.update(f"\0{key}\0{value.dtype.str}\0{tensors[key].shape}\0".encode())
        digest.update(value.data if value.size else b"")
    return digest.hexdigest()


def to_arrays(tensors: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Return named arrays as Flower's record."""
    return record_of({key: array_of(value) for key, value in tensors.items()})


def to_tensors(arrays: ArrayRecord) -> Tensors:
    """Return Flower's record as named arrays."""
    return {key: values_of(array) for key, array in arrays.items()}


def strategy_state(strategy: Strategy) -> tuple[Tensors, dict[str, Any]]:
    """Return what a strategy remembers: its attributes that are numbers, arrays or nests of them.

    Works for any strategy that keeps its state in attributes, Flower's included; functions and
    the like belong to how it was built and are built again.
    """
    tensors: Tensors = {}
    tree: dict[str, Any] = {}
    for name, value in vars(strategy).items():
        try:
            if _strategies(value):
                inner = [_inner(each, f"{name}.{i}", tensors) for i, each in enumerate(value)]
                tree[name] = {"strategies": inner}
            else:
                tree[name] = _flatten(value, name, tensors)
        except TypeError:
            continue
    return tensors, tree


def restore_strategy(strategy: Strategy, tensors: Tensors, tree: Mapping[str, Any]) -> None:
    """Give a freshly built strategy the state that `strategy_state` returned."""
    for name, node in tree.items():
        if "strategies" in node:
            for i, inner in enumerate(node["strategies"]):
                part = under(f"{name}.{i}", tensors)
                restore_strategy(getattr(strategy, name)[i], part, inner)
        else:
            setattr(strategy, name, _restore(node, tensors))


def require_same(path: Path, theirs: Mapping[str, str], mine: Mapping[str, str]) -> None:
    """Refuse a checkpoint that other code or settings wrote.

    Raises
    ------
    FedproofError
        Then.
    """
    for kind, digest in mine.items():
        if theirs[kind] != digest:
            raise FedproofError(
                f"{path} was written with other {kind}: resume with the {kind} of that run "
                "(only rounds, engine and stopping rule may change)."
            )


def prefixed(parts: Mapping[str, Tensors]) -> Tensors:
    """Return all tensors of several parts, with ``PART/`` before each name."""
    return {
        f"{part}/{key}": value for part, tensors in parts.items() for key, value in tensors.items()
    }


def under(prefix: str, tensors: Tensors) -> Tensors:
    """Return the tensors below ``prefix/``, without it."""
    start = f"{prefix}/"
    return {key.removeprefix(start): v for key, v in tensors.items() if key.startswith(start)}


def _strategies(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, Strategy) for item in value)


def _inner(strategy: Strategy, where: str, tensors: Tensors) -> dict[str, Any]:
    """Move the arrays of one strategy of several into `tensors`; return its tree."""
    found, tree = strategy_state(strategy)
    tensors |= prefixed({where: found})
    return tree


def _flatten(value: Any, where: str, tensors: Tensors) -> Any:
    """Move arrays into `tensors`; return a JSON tree that says where they are."""
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    if isinstance(value, np.generic):
        return {"scalar": _flatten(np.asarray(value), where, tensors)}
    if isinstance(value, np.ndarray):
        tensors[where] = value
        return {"array": where}
    if isinstance(value, ArrayRecord):
        return {"arrays": _flatten(to_tensors(value), where, tensors)}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {k: _flatten(v, f"{where}.{k}", tensors) for k, v in value.items()}}
    if isinstance(value, list | tuple):
        items = [_flatten(v, f"{where}.{i}", tensors) for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    raise TypeError(where)


def _restore(node: Mapping[str, Any], tensors: Tensors) -> Any:
    (kind, inner), *_ = node.items()
    if kind == "array":
        return tensors[inner].copy()
    if kind == "scalar":
        return _restore(inner, tensors)[()]
    if kind == "arrays":
        return to_arrays(_restore(inner, tensors))
    if kind == "dict":
        return {key: _restore(value, tensors) for key, value in inner.items()}
    if kind in ("list", "tuple"):
        items = [_restore(value, tensors) for value in inner]
        return tuple(items) if kind == "tuple" else items
    return inner
