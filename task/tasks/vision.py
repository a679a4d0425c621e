"""Image classification: digits, MNIST, Fashion-MNIST, EMNIST, CIFAR-10, and FEMNIST by writer.

Pixels stay uint8 until a client's rows are asked for, so that a machine which serves many clients
holds a quarter of what float32 would take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conf.errors import FedproofError
from task.base import ClientData, Examples, Json, ModelSpec, Pool, TensorTask
from task.objectives import MultiClass, Objective
from task.tasks import _images


@dataclass(frozen=True)
class Dataset:
    """Shape of a data set's images and the constants that normalise them.

    Attributes
    ----------
    shape : tuple of int
        Channels, height, width.
    white : int
        Largest pixel value.
    mean, std : tuple of float
        Per channel, of pixels scaled to [0, 1]; published, so that no client's images are needed.
    """

    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    white: int = 255


# Constants: digits from scikit-learn's own 1,797 images; MNIST from PyTorch's examples; the
# others are those in general use for the training sets of these data sets.
DATASETS = {
    "digits": Dataset((1, 8, 8), 10, (0.3053,), (0.3760,), white=16),
    "mnist": Dataset((1, 28, 28), 10, (0.1307,), (0.3081,)),
    "fashion_mnist": Dataset((1, 28, 28), 10, (0.2860,), (0.3530,)),
    "emnist": Dataset((1, 28, 28), 47, (0.1751,), (0.3332,)),
    "cifar10": Dataset((3, 32, 32), 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "femnist": Dataset((1, 28, 28), 62, (0.9637,), (0.1597,)),
}


class Task(TensorTask):
    """Classify small images.

    ``task.dataset`` is one of `DATASETS`. An ``.npz`` file at ``task.path`` (or a silo's own)
    goes before the public images of any of them.
    """

    sources = (
        "digits: UCI Optical Recognition of Handwritten Digits (scikit-learn), CC BY 4.0; "
        "mnist: LeCun et al., CC BY-SA 3.0; fashion_mnist: Zalando, MIT; "
        "emnist, femnist: NIST Special Database 19 (Cohen et al. 2017; LEAF, Caldas et al. 2018); "
        "cifar10: Krizhevsky 2009"
    )

    def load(self, path: Path | None) -> Pool[Examples]:
        """Read the images.

        `path` is torchvision's root folder (MNIST, Fashion-MNIST, EMNIST, CIFAR-10), a folder or
        file of LEAF's JSON (FEMNIST), or, for every data set, an ``.npz`` file with ``x`` (uint8,
        images), ``y``, and if known ``writer`` and ``test``.
        """
        name, known = self._name, self._dataset
        if path is not None and path.suffix == ".npz":
            return _images.from_npz(path, known.shape, known.classes)
        if name == "digits":
            if path is None:
                return _images.digits()
            raise FedproofError(f"digits of your own must be an .npz file, not {path}.")
        if path is None:
            raise FedproofError(f"task.dataset={name} needs task.path: where its files are.")
        if name == "femnist":
            return _images.from_leaf(path, known.shape, known.classes)
        return _images.from_torchvision(name, path, bool(self.config.options["download"]))

    def spec(self, shared: Mapping[str, Any]) -> ModelSpec:
        """Return the images' shape and the number of classes."""
        return ModelSpec(self._dataset.shape, self._dataset.classes)

    def objective(self, shared: Mapping[str, Any]) -> Objective:
        """One class per image."""
        return MultiClass(self._dataset.classes)

    def describe(self, train: Examples) -> Json:
        """Return what ``task.scaling`` asks for, of normalised pixels."""
        return super().describe(self._normalized(train))

    def prepare(self, train: Examples, test: Examples, shared: Mapping[str, Any]) -> ClientData:
        """Turn pixels into float32, normalised with the data set's constants."""
        return super().prepare(self._normalized(train), self._normalized(test), shared)

    def _normalized(self, images: Examples) -> Examples:
        known = self._dataset
        mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (known.mean, known.std))
        return Examples((images.x.float() / known.white - mean) / std, images.y)

    @property
    def _name(self) -> str:
        return self.config.dataset or "digits"

    @property
    def _dataset(self) -> Dataset:
        if self._name not in DATASETS:
            raise FedproofError(
                f"no data set '{self._name}' in task vision: choose one of {', '.join(DATASETS)}."
            )
        return DATASETS[self._name]
