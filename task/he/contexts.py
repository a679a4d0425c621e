"""Keys and parameters: the clients' context holds the secret key, the server's holds no key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from conf.errors import FedproofError


class Scheme(StrEnum):
    """Homomorphic encryption schemes."""

    bfv = "bfv"
    ckks = "ckks"


@dataclass(frozen=True)
class Parameters:
    """What all parties of a run know.

    SEAL refuses parameters below 128 bits of security (homomorphicencryption.org's table).

    Attributes
    ----------
    scheme : Scheme
    degree : int
        Of the polynomials, a power of two.
    coefficient_bits : tuple of int
        Sizes of the primes whose product is the ciphertexts' modulus; the last is for keys only.
    plain_modulus : int
        BFV: a prime, 1 modulo 2 × degree.
    scale_bits : int
        CKKS: numbers are multiples of 2^-scale_bits.
    """

    scheme: Scheme
    degree: int
    coefficient_bits: tuple[int, ...]
    plain_modulus: int = 0
    scale_bits: int = 0

    @property
    def slots(self) -> int:
        """Numbers in a plaintext."""
        return self.degree if self.scheme is Scheme.bfv else self.degree // 2


class Key:
    """A client's context with the secret key.

    Encryption is symmetric: every client has the secret key, so a public one would only make the
    errors larger and encryption slower, and would let others encrypt.

    Parameters
    ----------
    data : bytes
        A serialised context, from `Key.create` at one of the clients.
    parameters : Parameters
        Those of the run.

    Attributes
    ----------
    data : bytes
        As given: whoever has them can decrypt everything.
    name : bytes, 8 of them
        A fingerprint, which tells ciphertexts of different keys apart.

    Raises
    ------
    FedproofError
        If the data is no such context.
    """

    def __init__(self, data: bytes, parameters: Parameters) -> None:
        self.data = data
        self.name = hashlib.sha256(b"fedproof he key\0" + data).digest()[:8]
        self.context = _load(data)
        if not self.context.is_private() or _without_key(self.context) != _without_key(
            _new(parameters)
        ):
            raise FedproofError(
                "the encryption key is not one for this run's parameters: the leader must make it "
                "from the same aggregation settings."
            )

    @classmethod
    def create(cls, parameters: Parameters) -> Key:
        """Make a new key, from the operating system's randomness."""
        return cls(
            _new(parameters).serialize(
                save_public_key=False,
                save_secret_key=True,
                save_galois_keys=False,
                save_relin_keys=False,
            ),
            parameters,
        )


def server_context(parameters: Parameters) -> Any:
    """Return a context that can add ciphertexts, and neither encrypt nor decrypt.

    It is made from the parameters alone: no client's key comes near it.
    """
    context = _load(_without_key(_new(parameters)))
    require_no_key(context)
    return context


def require_no_key(context: Any) -> None:
    """Refuse a context that could decrypt."""
    if context.is_private():
        raise FedproofError(
            "the server's encryption context holds a secret key, which only clients may have: the "
            "run was stopped."
        )


def library() -> Any:
    """Import TenSEAL, which takes its time and is optional.

    Raises
    ------
    FedproofError
        If it is not installed.
    """
    try:
        import tenseal
    except ImportError:
        raise FedproofError(
            "aggregation=he needs TenSEAL, which is not installed: `uv sync --extra he` adds it."
        ) from None
    return tenseal


def _new(parameters: Parameters) -> Any:
    """Return a context with a key of its own."""
    tenseal = library()
    exact = parameters.scheme is Scheme.bfv
    try:
        context = tenseal.context(
            tenseal.SCHEME_TYPE.BFV if exact else tenseal.SCHEME_TYPE.CKKS,
            parameters.degree,
            plain_modulus=parameters.plain_modulus if exact else None,
            coeff_mod_bit_sizes=list(parameters.coefficient_bits),
            encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
            n_threads=1,
        )
    except (ValueError, RuntimeError) as error:
        raise FedproofError(
            f"degree {parameters.degree} with primes of {list(parameters.coefficient_bits)} bits "
            f"is not allowed ({error}): choose a larger aggregation.degree."
        ) from None
    if not exact:
        context.global_scale = 2.0**parameters.scale_bits
    return context


def _load(data: bytes) -> Any:
    try:
        return library().context_from(data, n_threads=1)
    except (ValueError, RuntimeError):
        raise FedproofError(
            "the encryption key is damaged: the leader must send it again."
        ) from None


def _without_key(context: Any) -> bytes:
    data: bytes = context.serialize(
        save_public_key=False, save_secret_key=False, save_galois_keys=False, save_relin_keys=False
    )
    return data
