"""The secret keys of a run, one for each scheme that it uses, as clients keep and send them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from conf.errors import FedproofError
from task.he.contexts import Key, Parameters

_LENGTH = struct.Struct("<I")


class KeyRing:
    """Keys by what they are for.

    Parameters
    ----------
    data : bytes
        From `KeyRing.data` at one of the clients.
    parameters : sequence of Parameters
        Those of the run, each once.

    Attributes
    ----------
    data : bytes
        As given: whoever has them can decrypt everything.
    name : bytes, 8 of them
        A fingerprint.

    Raises
    ------
    FedproofError
        If the data holds no such keys.
    """

    def __init__(self, data: bytes, parameters: Sequence[Parameters]) -> None:
        start = _LENGTH.size * len(parameters)
        if len(data) < start:
            raise _damaged()
        lengths = (_LENGTH.unpack_from(data, i)[0] for i in range(0, start, _LENGTH.size))
        ends = [start]
        for length in lengths:
            ends.append(ends[-1] + length)
        if ends[-1] != len(data):
            raise _damaged()
        parts = [data[a:b] for a, b in pairwise(ends)]
        self.data = data
        self.name = hashlib.sha256(b"fedproof he keys\0" + data).digest()[:8]
        self._keys = {
            known: Key(part, known) for known, part in zip(parameters, parts, strict=True)
        }

    @classmethod
    def create(cls, parameters: Sequence[Parameters]) -> KeyRing:
        """Make new keys, from the operating system's randomness."""
        parts = [Key.create(known).data for known in parameters]
        return cls(b"".join([*(_LENGTH.pack(len(part)) for part in parts), *parts]), parameters)

    def of(self, parameters: Parameters) -> Key:
        """Return the key for some parameters of the run."""
        return self._keys[parameters]


@lru_cache(maxsize=4)
def ring_of(data: bytes, parameters: tuple[Parameters, ...]) -> KeyRing:
    """Return a ring from its bytes; a process keeps it, because loading one takes 20 ms a key."""
    return KeyRing(data, parameters)


def _damaged() -> FedproofError:
    return FedproofError("the encryption key is damaged: the leader must send it again.")
