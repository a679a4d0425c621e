"""Where images come from: scikit-learn, torchvision's files, LEAF's JSON, numpy archives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.base import Examples, Pool
from task.tasks import _leaf, _npz
from task.tasks._locks import locked

Shape = tuple[int, int, int]
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


def digits() -> Pool[Examples]:
    """Return scikit-learn's 1,797 handwritten digits, pixels 0 to 16."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return _pool(data.images.astype(np.uint8)[:, None], data.target.astype(np.int64))


def from_torchvision(name: str, root: Path, download: bool) -> Pool[Examples]:
    """Read a data set that torchvision knows; its official test images are held out.

    Raises
    ------
    FedproofError
        If the files are missing or damaged, or cannot be downloaded.
    """
    try:
        if download:
            with locked(root):
                parts = [_torchvision(name, root, train, download=True) for train in (True, False)]
        else:
            parts = [_torchvision(name, root, train, download=False) for train in (True, False)]
    except (RuntimeError, OSError, EOFError, ValueError, AssertionError, LookupError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        advice = (
            "remove what is damaged there, and check the network"
            if download
            else "task.download=true fetches and unpacks them"
        )
        raise FedproofError(
            f"cannot read the files of {name} at {root} ({reason.rstrip('.:')}): {advice}."
        ) from None
    (x, y), (x_test, y_test) = parts
    test = np.repeat([False, True], [len(y), len(y_test)])
    return _pool(np.concatenate([x, x_test]), np.concatenate([y, y_test]), test=test)


def from_npz(path: Path, shape: Shape, classes: int) -> Pool[Examples]:
    """Read images of one `shape` from an archive.

    Keys: ``x`` uint8 (n, channels, height, width), or (n, height, width) if there is one channel;
    ``y`` (n,). If known ``writer`` (n,), names or positions in ``writers``; ``test`` (n,).

    Raises
    ------
    FedproofError
        If the file is missing or does not fit.
    """
    arrays = _npz.read(path, ("x", "y"), ("writer", "writers", "test"))
    x = arrays["x"]
    if x.dtype != np.uint8 or x.shape[1:] not in (shape, shape[1:] if shape[0] == 1 else shape):
        raise FedproofError(
            f"{path}: x must be uint8 images of (channels, height, width) {shape}, "
            f"got {x.dtype} {x.shape[1:]}."
        )
    y = _npz.classes(arrays["y"], classes, path)
    writers, test = arrays.get("writer"), arrays.get("test")
    if any(extra is not None and extra.shape != y.shape for extra in (writers, test)):
        raise FedproofError(f"{path}: writer and test must have one value per image.")
    names = None if writers is None else _writers(writers, arrays.get("writers"), path)
    return _pool(x.reshape(-1, *shape), y, names, None if test is None else test.astype(np.bool_))


def _writers(writers: NDArray[Any], names: NDArray[Any] | None, path: Path) -> list[str]:
    if names is None:
        return [str(writer) for writer in writers]
    try:
        return [str(name) for name in names[writers]]
    except IndexError:
        raise FedproofError(f"{path}: writer must hold positions in writers.") from None


def from_leaf(path: Path, shape: Shape, classes: int) -> Pool[Examples]:
    """Read LEAF's JSON as `_leaf.read` finds it.

    Raises
    ------
    FedproofError
        If there are no such files, or they do not fit.
    """
    parts = _leaf.read(path)
    rows = [_leaf_rows(part, shape, classes) for part in parts]
    sizes = [len(labels) for _, labels in rows]
    users = [part.user for part, size in zip(parts, sizes, strict=True) for _ in range(size)]
    split = parts[0].held_out is not None
    held_out = np.repeat([bool(part.held_out) for part in parts], sizes) if split else None
    x, y = (np.concatenate(column) for column in zip(*rows, strict=True))
    return _pool(x, y, users, held_out)


def _leaf_rows(part: _leaf.Part, shape: Shape, classes: int) -> tuple[Pixels, Labels]:
    width = int(np.prod(shape))
    try:
        x, y = np.array(part.x, dtype=np.float64), np.array(part.y)
    except (ValueError, TypeError):
        x, y = np.empty((0, 0)), np.empty(0)
    if not len(y) or x.shape != (len(y), width):
        raise FedproofError(f"{part.file}: user {part.user} needs one row of {width} per label.")
    # LEAF divided by 255; so this is exact.
    pixels = np.rint(x * 255).astype(np.uint8).reshape(-1, *shape)
    return pixels, _npz.classes(y, classes, part.file)


def _torchvision(name: str, root: Path, train: bool, download: bool) -> tuple[Pixels, Labels]:
    from torchvision import datasets

    place: dict[str, Any] = {"root": root, "train": train, "download": download}
    if name == "cifar10":
        cifar = datasets.CIFAR10(**place)
        return cifar.data.transpose(0, 3, 1, 2), np.array(cifar.targets, dtype=np.int64)
    if name == "emnist":
        letters = datasets.EMNIST(**place, split="balanced")
        # EMNIST's files hold each image transposed.
        return letters.data.mT.contiguous().numpy()[:, None], letters.targets.numpy()
    kind = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST}[name]
    images = kind(**place)
    return images.data.numpy()[:, None], images.targets.numpy()


def _pool(
    x: Pixels,
    y: Labels,
    clients: Sequence[str] | None = None,
    test: NDArray[np.bool_] | None = None,
) -> Pool[Examples]:
    rows = Examples(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y))
    return Pool(rows, y, clients, test)
