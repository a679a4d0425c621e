"""Small integers side by side in bytes, and sorted ones in hardly more bits than they need."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from task.compression.base import MalformedError, Packet, taken

Bytes = NDArray[np.uint8]


def packed(numbers: NDArray[np.integer[Any]], bits: int) -> Bytes:
    """Return numbers below 2^bits as so many bits each, the least significant first.

    Parameters
    ----------
    numbers : array, shape (n,)
        Not negative.
    bits : int
        At most 32.
    """
    width = _width(bits)
    wide = np.ascontiguousarray(numbers, f"<u{width}").view(np.uint8).reshape(-1, width)
    each = np.unpackbits(wide, axis=1, count=bits, bitorder="little")
    return np.packbits(each.reshape(-1), bitorder="little")


def unpacked(data: Bytes, bits: int, count: int) -> NDArray[np.unsignedinteger[Any]]:
    """Return the numbers that `packed` was given, shape (count,); `data` must hold so many."""
    width = _width(bits)
    wide = np.zeros((count, 8 * width), np.uint8)
    wide[:, :bits] = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
    return np.packbits(wide, axis=1, bitorder="little").view(f"<u{width}").reshape(-1)


def _width(bits: int) -> int:
    """Return the bytes of the type that numbers of so many bits are handled as."""
    return 1 if bits <= 8 else 4


def length(bits: int, count: int) -> int:
    """Return how many bytes `packed` makes."""
    return -(-bits * count // 8)


def positions(indices: NDArray[np.int64], size: int) -> Packet:
    """Return which of `size` places are meant: Elias-Fano coding, 2 + log2(size / k) bits each.

    The low bits of each index are written as they are. The high ones count up: index number i has
    a one at place high + i of a second string (Elias 1974, "Efficient storage and retrieval by
    content and address of static files").

    Parameters
    ----------
    indices : array of int64, shape (k,)
        Increasing, from 0 to size - 1.
    """
    low, total = _widths(len(indices), size)
    ones = np.zeros(total, np.uint8)
    ones[(indices >> low) + np.arange(len(indices))] = 1
    lows = packed(indices & (1 << low) - 1, low)
    return {"low": lows, "high": np.packbits(ones, bitorder="little")}


def placed(packet: Packet, count: int, size: int) -> NDArray[np.int64]:
    """Return the indices that `positions` was given.

    Raises
    ------
    MalformedError
        If those are not `count` increasing ones below `size`.
    """
    low, total = _widths(count, size)
    lows = taken(packet, "low", np.uint8, length(low, count))
    highs = taken(packet, "high", np.uint8, length(1, total))
    ones = np.flatnonzero(np.unpackbits(highs, count=total, bitorder="little"))
    if len(ones) != count:
        raise MalformedError(f"names {len(ones)} places, not {count}")
    indices = (ones - np.arange(count) << low) + unpacked(lows, low, count).astype(np.int64)
    if (np.diff(indices) <= 0).any() or (count and indices[-1] >= size):
        raise MalformedError("names places that do not increase, or are none")
    return indices


def _widths(count: int, size: int) -> tuple[int, int]:
    """Return how many bits are low, and how many the string of the high ones has."""
    low = max(0, (size // max(count, 1)).bit_length() - 1)
    return low, count + (size >> low) + 1
