"""Masks: as many uniform integers modulo 2^b as a vector has, from a 256-bit seed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger[Any]]
TYPES: dict[int, np.dtype[Any]] = {16: np.dtype("<u2"), 32: np.dtype("<u4")}
"""Integers modulo 2^b by b: sums of them wrap around by themselves."""
_PIECE = 1 << 18
"""Bytes that are made and added at once, so that they stay in the cache."""
_ZEROS = bytes(_PIECE)


def add_masks(words: Words, added: Iterable[bytes], subtracted: Iterable[bytes]) -> None:
    """Add and subtract masks, in place.

    Parameters
    ----------
    words : uint16 or uint32 array, shape (size,)
        Of the types in `TYPES`.
    added, subtracted : iterable of bytes
        Seeds, 32 bytes each: keys of AES-256 in counter mode. A seed serves one mask only.
    """
    # AES gives whole blocks; with room for one more the library needs no buffer of its own.
    buffer = bytearray(_PIECE + 15)
    place = np.frombuffer(buffer, words.dtype, _PIECE // words.itemsize)
    for seeds, change in ((added, np.add), (subtracted, np.subtract)):
        for seed in seeds:
            stream = Cipher(AES(seed), CTR(bytes(16))).encryptor()
            for start in range(0, len(words), len(place)):
                piece = words[start : start + len(place)]
                stream.update_into(_ZEROS, buffer)
                change(piece, place[: len(piece)], out=piece)
