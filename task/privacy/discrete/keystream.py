"""Random bits from a block cipher: as unpredictable as its key, at memory speed."""

from __future__ import annotations

import hashlib
import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

_BLOCK = 16
"""Bytes that AES gives at once; whole blocks cost the library no extra buffer."""


class KeyStream:
    """AES-256 in counter mode as a source of random words.

    Parameters
    ----------
    key : bytes, 32 of them, optional
        256 bits from the operating system unless given. A key that others know makes the bits
        public: for what all parties must draw alike, and for tests.
    """

    def __init__(self, key: bytes | None = None) -> None:
        key = os.urandom(32) if key is None else key
        # A key serves one stream only, so the counter may start at zero.
        self._stream = Cipher(AES(key), CTR(bytes(_BLOCK))).encryptor()

    @classmethod
    def public(cls, purpose: str, seed: bytes) -> KeyStream:
        """Return the stream that everybody draws who knows `seed`; other purposes, other bits."""
        return cls(hashlib.sha256(purpose.encode() + b"\0" + seed).digest())

    def words(self, count: int) -> NDArray[np.uint64]:
        """Return the next `count` words, uniform over 64 bits."""
        drawn = np.empty(8 * count + _BLOCK - 1, np.uint8)
        self._stream.update_into(bytes(8 * count), drawn.data)
        return drawn[: 8 * count].view(np.dtype("<u8")).astype(np.uint64, copy=False)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return the next `count` numbers in [0, 1), multiples of 2^-53."""
        drawn: NDArray[np.float64] = (self.words(count) >> np.uint64(11)).astype(np.float64)
        return np.ldexp(drawn, -53)

    def signs(self, count: int) -> NDArray[np.float64]:
        """Return the next `count` signs, -1 or 1, in whole words."""
        bits = np.unpackbits(self.words(-(-count // 64)).view(np.uint8), bitorder="little")
        return np.where(bits[:count], -1.0, 1.0)
