"""Flower's arrays without its copies: values lie in the serialised bytes themselves.

The bytes are those of ``numpy.save``, as Flower's own, so either side may read the other's.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

_STYPE = "numpy.ndarray"
_LONGEST = 1 << 10
"""Bytes of a header that is looked at."""
_MOST_AXES = 32
"""Of an array: to multiply a million sizes takes minutes."""


def array_of(values: NDArray[Any]) -> Array:
    """Return values as Flower's array: one copy."""
    array, place = blank(values.shape, values.dtype)
    place[...] = values
    return array


def blank(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Array, NDArray[Any]]:
    """Return an array of zeros, and its values to write into."""
    header = _header(dtype.str, shape)
    data = bytearray(len(header) + math.prod(shape) * dtype.itemsize)
    data[: len(header)] = header
    place = np.frombuffer(data, dtype, offset=len(header)).reshape(shape)
    return serialized(str(dtype), shape, _STYPE, data), place


def values_of(array: Array) -> NDArray[Any]:
    """Return an array's values, without a copy where its bytes allow it; do not write to them.

    Raises
    ------
    ValueError, TypeError
        If the bytes are no array of the type and shape that the array says.
    """
    dtype = np.dtype(array.dtype)
    shape = tuple(array.shape)
    if len(shape) > _MOST_AXES:
        raise ValueError(f"an array of {len(shape)} axes")
    start = len(array.data) - math.prod(shape) * dtype.itemsize
    plain = array.stype == _STYPE and 0 < start <= _LONGEST
    if plain and bytes(array.data[:start]) == _header(dtype.str, shape):
        return np.frombuffer(array.data, dtype, offset=start).reshape(shape)
    # Its own header is what numpy goes by: a large claim would be allocated before it is read.
    stream = io.BytesIO(array.data)
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
    if header is None or array.stype != _STYPE:
        raise ValueError("not an array as numpy.save writes it")
    claimed, _, kind = header(stream)
    if math.prod(claimed) * kind.itemsize != len(array.data) - stream.tell():
        raise ValueError("an array of another size than it says")
    return array.numpy()


def record_of(arrays: Mapping[str, Array]) -> ArrayRecord:
    """Return arrays as Flower's record, whose constructor takes none but those on `bytes`."""
    record = ArrayRecord()
    for key, array in arrays.items():
        record[key] = array
    return record


def digest_of(record: ArrayRecord) -> bytes:
    """Return a SHA-256 digest of named arrays: 32 bytes, whatever their order."""
    digest = hashlib.sha256()
    for name, array in sorted(record.items()):
        digest.update(f"{name}\0{array.dtype}\0{tuple(array.shape)}\0".encode())
        digest.update(array.data)
    return digest.digest()


def serialized(dtype: str, shape: tuple[int, ...], stype: str, data: Any) -> Array:
    """Return an array on bytes that need not be a `bytes` object."""
    array = Array(dtype, shape, stype, b"")
    array.data = data
    return array


@lru_cache(maxsize=1024)
def _header(descr: str, shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    facts = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, facts)
    return stream.getvalue()
