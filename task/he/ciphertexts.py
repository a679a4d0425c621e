"""Ciphertexts as byte arrays, made and opened by clients, added up by the server.

An array holds the digest of all that follows, which shows accidents and keeps nobody from making
changes; a header (format, scheme, the key's name, how many ciphertexts and how long each is); and
the ciphertexts as SEAL serialises them, one for each plaintext.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.he.cohort import Average, Cohort
from task.he.contexts import Key, Parameters, Scheme, library, require_no_key, server_context

Bytes = NDArray[np.uint8]
Read = tuple[bytes, list[Any]]
"""The key's name, and ciphertexts."""

_HEADER = struct.Struct("<4s4s8sI")
_MAGIC = b"FPH1"
_DIGEST = 32
_BROKEN = "the ciphertexts are damaged or not of this run's parameters, and were refused."


class Packing(Protocol):
    """What `ExactPacking` and `ApproximatePacking` have in common."""

    cohort: Cohort
    parameters: Parameters

    def pack(self, values: NDArray[np.floating], weight: int) -> NDArray[Any]:
        """Return the plaintexts of an update, a row each."""

    def unpack(self, plaintexts: NDArray[Any]) -> Average:
        """Return the mean that a sum of plaintexts holds, or refuse it."""

    def error(self, count: int, weight: int) -> float:
        """Return what bounds the error of the mean of so many updates of this weight together."""


def encrypt(packing: Packing, key: Key, values: NDArray[np.floating], weight: int) -> Bytes:
    """Return one client's update, encrypted.

    Parameters
    ----------
    packing : Packing
        The same at all clients.
    key : Key
        The same at all clients.
    values : float array, shape (size,)
        The update.
    weight : int
        How much it counts in the mean.

    Raises
    ------
    FedproofError
        If a value is not finite or the weight not allowed.
    ValueError
        If there are more values, or fewer.
    """
    if values.shape != (packing.cohort.size,):
        raise ValueError(f"an update of shape {values.shape}, not {packing.cohort.size} values")
    make = _vector_type(packing.parameters)
    plaintexts = packing.pack(values, weight)
    return _joined(
        packing.parameters.scheme,
        key.name,
        [make(key.context, row.tolist()).serialize() for row in plaintexts],
    )


def decrypt(packing: Packing, key: Key, total: Bytes) -> Average:
    """Return the mean that a sum of encrypted updates holds.

    Raises
    ------
    FedproofError
        If it is none, was made with another key, or is one of too few updates.
    """
    name, parts = _split(packing.parameters.scheme, total)
    if name != key.name:
        raise FedproofError(
            "the encrypted sum was made with another key than this client's: all clients need the "
            "key that this run's leader sent."
        )
    rows = [vector.decrypt() for vector in _vectors(packing.parameters, key.context, parts)]
    return packing.unpack(np.array(rows))


class EncryptedSum:
    """What the server has: a sum of ciphertexts, and never more than one update beside it.

    Parameters
    ----------
    parameters : Parameters
        Those of the run.
    clients : int
        The most that may be added; beyond, sums would no longer be right.

    Attributes
    ----------
    count : int
        How many were added.
    """

    def __init__(self, parameters: Parameters, clients: int) -> None:
        self._parameters, self._clients = parameters, clients
        self._context = server_context(parameters)
        self._key = b""
        self._sum: list[Any] = []
        self.count = 0

    def add(self, update: Bytes, sender: str) -> None:
        """Add one client's encrypted update; after a refusal the sum is what it was before.

        Raises
        ------
        FedproofError
            If it is not what `encrypt` returns with the same key, or one too many.
        """
        self.take(self.read(update, sender))

    def read(self, update: Bytes, sender: str) -> Read:
        """Return one client's encrypted update as it can be added, for `take`.

        Raises
        ------
        FedproofError
            As for `add`.
        """
        require_no_key(self._context)
        if self.count == self._clients:
            raise FedproofError(
                f"the encrypted update of '{sender}' is one more than the {self._clients} that "
                "were announced: raise aggregation.max_clients."
            )
        try:
            name, parts = _split(self._parameters.scheme, update)
            vectors = list(_vectors(self._parameters, self._context, parts))
        except FedproofError as error:
            raise FedproofError(f"client '{sender}': {error}") from None
        if self.count and (name != self._key or len(vectors) != len(self._sum)):
            raise FedproofError(
                f"the encrypted update of '{sender}' does not belong to the others: it has another "
                "key or another model, and was left out."
            )
        return name, vectors

    def take(self, update: Read) -> None:
        """Add what `read` returned, before anything else is added."""
        self._key, vectors = update
        self._sum = (
            [mine.add_(theirs) for mine, theirs in zip(self._sum, vectors, strict=True)]
            if self.count
            else vectors
        )
        self.count += 1

    def total(self) -> Bytes:
        """Return the sum, for the clients."""
        return _joined(
            self._parameters.scheme, self._key, [vector.serialize() for vector in self._sum]
        )


def _vector_type(parameters: Parameters) -> Any:
    tenseal = library()
    return tenseal.bfv_vector if parameters.scheme is Scheme.bfv else tenseal.ckks_vector


def _vectors(parameters: Parameters, context: Any, parts: list[bytes]) -> Iterator[Any]:
    tenseal = library()
    exact = parameters.scheme is Scheme.bfv
    load = tenseal.bfv_vector_from if exact else tenseal.ckks_vector_from
    for part in parts:
        try:
            vector = load(context, part)
        except (ValueError, RuntimeError):
            raise FedproofError(_BROKEN) from None
        if vector.size() != parameters.slots or len(vector.ciphertext()) != 1:
            raise FedproofError(_BROKEN)
        yield vector


def _joined(scheme: Scheme, name: bytes, parts: list[bytes]) -> Bytes:
    head = _HEADER.pack(_MAGIC, scheme.encode(), name, len(parts))
    lengths = np.array([len(part) for part in parts], "<u4").tobytes()
    body = b"".join([head, lengths, *parts])
    return np.frombuffer(hashlib.sha256(body).digest() + body, np.uint8)


def _split(scheme: Scheme, array: Bytes) -> tuple[bytes, list[bytes]]:
    flat = array.dtype == np.uint8 and array.ndim == 1
    whole = np.ascontiguousarray(array).data if flat else memoryview(b"")
    digest, data = whole[:_DIGEST], whole[_DIGEST:]
    if len(data) < _HEADER.size or hashlib.sha256(data).digest() != digest:
        raise FedproofError(_BROKEN)
    magic, kind, name, count = _HEADER.unpack_from(data)
    start = _HEADER.size + 4 * count
    if magic != _MAGIC or kind.rstrip(b"\0") != scheme.encode() or len(data) < start:
        raise FedproofError(_BROKEN)
    ends = start + np.cumsum(np.frombuffer(data, "<u4", count, _HEADER.size), dtype=np.int64)
    if not count or ends[-1] != len(data):
        raise FedproofError(_BROKEN)
    bounds = [start, *ends.tolist()]
    return name, [bytes(data[a:b]) for a, b in pairwise(bounds)]
