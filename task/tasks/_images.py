"""Where images come from: scikit-learn, torchvision's files, LEAF's JSON, numpy archives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.base import Examples, Pool
from task.tasks import _npz
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
    """Read LEAF's JSON (Caldas et al. 2018): one file, or a folder of them.

    A folder with ``train`` and ``test`` in it, as LEAF's ``preprocess.sh`` leaves it, says which
    images are held out; ``all_data`` or the folder itself leave that to each client.

    Raises
    ------
    FedproofError
        If there are no such files, or they do not fit.
    """
    split = (path / "train").is_dir()
    whole = path / "all_data" if (path / "all_data").is_dir() else path
    folders = [path / "train", path / "test"] if split else [whole]
    users: list[str] = []
    x, y, test = [], [], []
    for folder in folders:
        for file in _json_files(folder):
            for user, images, labels in _read_leaf(file, shape, classes):
                users += [user] * len(labels)
                x.append(images)
                y.append(labels)
                test.append(np.full(len(labels), folder.name == "test"))
    held_out = np.concatenate(test) if split else None
    return _pool(np.concatenate(x), np.concatenate(y), users, held_out)


def _json_files(folder: Path) -> list[Path]:
    files = [folder] if folder.is_file() else sorted(folder.glob("*.json"))
    if not files:
        raise FedproofError(
            f"no .json files at {folder}: task.path must be LEAF's femnist/data folder or a file "
            "of it, or an .npz file."
        )
    return files


def _read_leaf(file: Path, shape: Shape, classes: int) -> list[tuple[str, Pixels, Labels]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        users = [(user, content["user_data"][user]) for user in content["users"]]
        rows = [(user, np.array(data["x"]), np.array(data["y"])) for user, data in users]
    except (ValueError, LookupError, TypeError):
        rows = []
    if not rows:
        raise FedproofError(f"{file} is not LEAF's: it needs users, and user_data with x and y.")
    result = []
    for user, x, y in rows:
        if x.shape != (len(y), int(np.prod(shape))):
            raise FedproofError(f"{file}: user {user} needs one row of {np.prod(shape)} per label.")
        # LEAF divided by 255; so this is exact.
        pixels = np.rint(x * 255).astype(np.uint8).reshape(-1, *shape)
        result.append((str(user), pixels, _npz.classes(y, classes, file)))
    return result


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
