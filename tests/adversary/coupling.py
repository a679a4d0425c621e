"""One noise stream for two silos: what the first released, the second releases, too.

Differential privacy is a statement about the sums that noise hides, given all that was released
before. So two silos are compared by a coupling: the first runs with real noise, and what its
mechanisms release is written onto a tape; in the second each mechanism makes its own sum, which is
held against the first one's (it must lie within the sensitivity), and releases what the tape says.
Everything that is computed from releases is then the same at both, whatever is adapted to what,
and every other difference in what leaves is a leak.

The hooks sit at the functions that add noise. `HOOKS` names them, the older ones included, so that
the same harness can be pointed at an older checkout.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

SUM, UPDATE, CLIP, COUNT, VECTOR, STATISTICS, UNKNOWN = (
    "sum of gradients", "client's update", "share below the clip", "count of rows",
    "masked vector", "evaluation's sums", "other noised value",
)  # fmt: skip
"""Kinds of releases."""
_SLACK = 1e-4
"""Of a sensitivity: sums in float32 depend on their order by this much at most."""


@dataclass
class Release:
    """One value that a mechanism let go.

    Attributes
    ----------
    kind : str
    exact : float64 array
        Before noise.
    sensitivity : float
        By how much one record may move `exact`, by its Euclidean norm; infinity under masks only.
    deviation : float
        Standard deviation of the noise.
    value : Any
        After noise.
    """

    kind: str
    exact: NDArray[np.float64]
    sensitivity: float
    deviation: float
    value: Any


@dataclass
class Coupling:
    """The tape, and the randomness of one message.

    Attributes
    ----------
    tape : list of Release
        Of the message that is being answered.
    problems : list of str
        Where the second silo's sums are not next to the first one's.
    records : int
        In how many records the silos differ at most: one added or removed, or one replaced, which
        is one removed and one added.
    aligned_at_end : bool
        Whether the silos' rows are the same counted from the end, not from the start.
    scaled : bool
        Whether a record may move the others, as `task.scaling=local` does; sums are then not
        compared.
    active : bool
        Whether a silo is answering; the server's own secrets are none of its releases.
    masked_sums : float
        By how much a vector under masks may differ: not at all where noise is in it, for all that
        a row moves was released before; infinity where masks alone hide it.
    """

    tape: list[Release] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    records: int = 1
    aligned_at_end: bool = False
    scaled: bool = False
    masked_sums: float = 0.0
    hooks: list[str] = field(default_factory=list)
    active: bool = False
    _replayed: int | None = None
    _inside: bool = False
    _stream: random.Random = field(default_factory=random.Random)
    _others: random.Random = field(default_factory=random.Random)
    _draws: int = 0
    _key: str = ""
    limit: float = 0.0

    def begin(self, key: str, *, replay: bool) -> None:
        """Start a message; `key` decides its randomness."""
        self.active = True
        self._key, self._draws = key, 0
        self._stream = random.Random(key)
        self.problems = []
        if replay:
            self._replayed = 0
        else:
            self._replayed, self.tape = None, []

    def idle(self, key: str) -> None:
        """Decide the randomness of whoever is no silo: the server and those who collude."""
        self._others = random.Random(key)

    def end(self) -> None:
        """End a message: the second silo must have released all that the first did."""
        self.active = False
        if self._replayed is not None and self._replayed < len(self.tape):
            missing = self.tape[self._replayed]
            self.problems.append(f"releases: the second silo lacks a {missing.kind}")

    def release(
        self,
        kind: str,
        exact: Any,
        bounds: tuple[float, float],
        make: Callable[[], Any],
    ) -> Any:
        """Return what a mechanism releases: its own value, or that of the tape.

        Parameters
        ----------
        kind : str
        exact : array
            What is to be hidden.
        bounds : (float, float)
            Its sensitivity to one record, and the deviation of the noise.
        make : callable
            Adds the noise.
        """
        if not self.active or self._inside:
            return make()
        exact = np.array(exact, dtype=np.float64).ravel()
        if self._replayed is None:
            value = self._made(make)
            self.tape.append(Release(kind, exact, *bounds, value))
            return value
        if self._replayed >= len(self.tape):
            self.problems.append(f"releases: the first silo lacks a {kind}")
            return self._made(make)
        told = self.tape[self._replayed]
        self._replayed += 1
        if told.kind != kind or told.exact.shape != exact.shape:
            self.problems.append(f"releases: a {told.kind} here, a {kind} there")
            return self._made(make)
        self._compare(told, exact, bounds)
        return told.value

    def _made(self, make: Callable[[], Any]) -> Any:
        """Make a value; what noises a part of it on the way is no release of its own."""
        self._inside = True
        try:
            return make()
        finally:
            self._inside = False

    def _compare(
        self, told: Release, exact: NDArray[np.float64], bounds: tuple[float, float]
    ) -> None:
        if (told.sensitivity, told.deviation) != bounds:
            self.problems.append(f"{told.kind}: other clip or noise")
        if self.scaled or np.isinf(told.sensitivity):
            return
        with np.errstate(all="ignore"):
            moved = float(np.linalg.norm(told.exact - exact))
        allowed = told.sensitivity * self.records
        if not moved <= allowed * (1 + _SLACK) + 1e-12:
            times = moved / told.sensitivity if told.sensitivity else np.inf
            self.problems.append(f"{told.kind}: moved by {times:.3g} x its sensitivity")

    def fresh_bytes(self, count: int) -> bytes:
        """Return what stands for the system's randomness."""
        return (self._stream if self.active else self._others).randbytes(count)

    def bernoulli(self, count: int, rate: float) -> NDArray[np.bool_]:
        """Return who is drawn; rows that both silos have are drawn at both."""
        self._draws += 1
        seed = hashlib.sha256(f"{self._key} {self._draws}".encode()).digest()
        drawn = np.random.default_rng(list(seed)).random(4096)[:count] < rate
        return drawn[::-1].copy() if self.aligned_at_end else drawn


HOOKS: list[tuple[str, Callable[[Coupling, Callable[..., None]], None]]] = []
"""What is put in a mechanism's place, by name; a hook raises AttributeError or ImportError where
the project has no such function."""


def hook(
    name: str,
) -> Callable[
    [Callable[[Coupling, Callable[..., None]], None]],
    Callable[[Coupling, Callable[..., None]], None],
]:
    """Register a hook."""

    def register(
        install: Callable[[Coupling, Callable[..., None]], None],
    ) -> Callable[[Coupling, Callable[..., None]], None]:
        HOOKS.append((name, install))
        return install

    return register


@contextmanager
def coupled() -> Iterator[Coupling]:
    """Put all hooks in place that the project has functions for; take them out again."""
    coupling, undo = Coupling(), []

    def put(owner: Any, name: str, value: Any) -> None:
        undo.append(
            (owner, name, owner.__dict__[name] if isinstance(owner, type) else getattr(owner, name))
        )
        setattr(owner, name, value)

    try:
        for name, install in HOOKS:
            try:
                install(coupling, put)
                coupling.hooks.append(name)
            except (ImportError, AttributeError, KeyError):
                continue
        yield coupling
    finally:
        for owner, name, value in reversed(undo):
            setattr(owner, name, value)


def _module(name: str) -> Any:
    return importlib.import_module(name)


@hook("system randomness")
def _randomness(coupling: Coupling, put: Callable[..., None]) -> None:
    put(os, "urandom", coupling.fresh_bytes)
    put(random, "_urandom", coupling.fresh_bytes)
    put(
        X25519PrivateKey,
        "generate",
        staticmethod(lambda: X25519PrivateKey.from_private_bytes(b"\0" + coupling.fresh_bytes(31))),
    )


@hook("noise of DP-SGD")
def _noise(coupling: Coupling, put: Callable[..., None]) -> None:
    dpsgd = _module("task.privacy.dpsgd")
    add, step = dpsgd.add_noise, dpsgd._Release.step

    def add_noise(gradient: torch.Tensor, deviation: float, noise: Any) -> None:
        def make() -> torch.Tensor:
            add(gradient, deviation, noise)
            return gradient.clone()

        bounds = (coupling.limit, deviation)
        gradient.copy_(coupling.release(SUM, gradient.clone(), bounds, make))

    def stepped(self: Any) -> Any:
        coupling.limit = self._clipping.limit
        return step(self)

    put(dpsgd, "add_noise", add_noise)
    put(dpsgd._Release, "step", stepped)


@hook("Poisson batches")
def _batches(coupling: Coupling, put: Callable[..., None]) -> None:
    kind = _module("task.privacy.noise").SecureNoise
    bernoulli = kind.bernoulli

    def drawn(self: Any, count: int, rate: float) -> Any:
        return coupling.bernoulli(count, rate) if coupling.active else bernoulli(self, count, rate)

    put(kind, "bernoulli", drawn)


@hook("any other noise")
def _any_noise(coupling: Coupling, put: Callable[..., None]) -> None:
    kind = _module("task.privacy.noise").SecureNoise
    made, noised, gaussian = kind.__init__, kind.noised, kind.gaussian

    def make(self: Any, key: bytes | None = None) -> None:
        # With a key of its own it is no noise: random rows, on which models are tried.
        made(self, key)
        self.keyed = key is not None

    def noise(self: Any, values: Any, deviation: float, **more: Any) -> Any:
        # Whoever calls it has a hook of its own, or else its sensitivity is nobody's to check.
        bounds = (0.0, deviation)
        release = coupling.release(
            UNKNOWN, values, bounds, lambda: noised(self, values, deviation, **more)
        )
        if more.get("out") is not None and release is not more["out"]:
            more["out"][:] = release
        return release

    def samples(self: Any, size: int, deviation: float) -> Any:
        if coupling.active and not coupling._inside and not self.keyed:
            coupling.problems.append("noise: is added by somebody whom no hook knows")
        return gaussian(self, size, deviation)

    put(kind, "__init__", make)
    put(kind, "noised", noise)
    put(kind, "gaussian", samples)


@hook("6ceebdb: Poisson batches")
def _old_batches(coupling: Coupling, put: Callable[..., None]) -> None:
    dpsgd = _module("task.privacy.dpsgd")
    dpsgd.os_generator  # noqa: B018 - newer code has none
    step = dpsgd._Release.step

    def stepped(self: Any) -> None:
        rand = torch.rand

        def drawn(count: int, **_: Any) -> torch.Tensor:
            return torch.from_numpy(np.where(coupling.bernoulli(count, self._rate), -1.0, 2.0))

        torch.rand = drawn  # type: ignore[assignment]
        try:
            step(self)
        finally:
            torch.rand = rand

    put(dpsgd._Release, "step", stepped)


@hook("adapted clip")
def _adapted(coupling: Coupling, put: Callable[..., None]) -> None:
    adaptive = _module("task.privacy.adaptive").AdaptiveClip
    updated = adaptive.updated

    def update(self: Any, clip: float, centred: float, noise: Any) -> float:
        bounds = (0.5, self.sigma_count)
        make = lambda: updated(self, clip, centred, noise)  # noqa: E731
        return float(coupling.release(CLIP, centred, bounds, make))

    put(adaptive, "updated", update)


@hook("clipped update")
def _clipped(coupling: Coupling, put: Callable[..., None]) -> None:
    kind = _module("task.privacy.client_dp").ClippedUpdate
    clipped = kind.clipped

    def clip(self: Any, update: torch.Tensor) -> Any:
        # Before noise, or under masks, or for a server that is trusted: the client's whole update.
        exact = clipped(self, update)
        value = exact[0] if isinstance(exact, tuple) else exact
        norm = float(value.double().norm())
        if not norm <= self.clip * (1 + _SLACK):
            coupling.problems.append(f"{UPDATE}: of norm {norm:.3g}, the clip is {self.clip:.3g}")
        bounds = (2 * self.clip, self.sigma * self.clip)
        return coupling.release(UPDATE, value.double().numpy(), bounds, lambda: exact)

    put(kind, "clipped", clip)


@hook("evaluation's sums")
def _evaluated(coupling: Coupling, put: Callable[..., None]) -> None:
    kind = _module("task.privacy.evaluation").EvaluationNoise
    noised = kind.noised

    def noise(self: Any, sums: Any, bounded: Any, source: Any) -> Any:
        blocks = bounded.blocks.items()
        weighted = np.concatenate([np.float64(sums[name]) * block.weight for name, block in blocks])
        most = bounded.sensitivity
        if self.per_client and not np.linalg.norm(weighted) <= most * (1 + _SLACK):
            coupling.problems.append(f"{STATISTICS}: a client's are longer than {most:.3g}")
        # One client's whole part is bounded, and a row may turn it round.
        bounds = (2 * most if self.per_client else most, self.deviation(bounded))
        make = lambda: noised(self, sums, bounded, source)  # noqa: E731
        return coupling.release(STATISTICS, weighted, bounds, make)

    put(kind, "noised", noise)


@hook("counts of rows")
def _counted(coupling: Coupling, put: Callable[..., None]) -> None:
    counts = _module("task.privacy.row_counts")
    kind, deviation = counts.RowCounts, counts.COUNT_DEVIATION
    noised = kind.noised

    def noise(self: Any, source: Any) -> Any:
        exact = (self.train, self.test)
        return coupling.release(COUNT, exact, (1.0, deviation), lambda: noised(self, source))

    put(kind, "noised", noise)


@hook("noise of secure sums")
def _encoded(coupling: Coupling, put: Callable[..., None]) -> None:
    noisy = _module("task.secagg.noisy")
    encode = noisy.encode

    def encoded(update: torch.Tensor, mechanism: Any, seed: bytes) -> Any:
        bounds = (np.inf, mechanism.variance**0.5 * mechanism.granularity)
        return coupling.release(
            UPDATE, update.double().numpy(), bounds, lambda: encode(update, mechanism, seed)
        ).copy()

    put(noisy, "encode", encoded)


@hook("masks")
def _masked(coupling: Coupling, put: Callable[..., None]) -> None:
    member = _module("task.secagg.client").Member
    mask = member.mask

    def masked(self: Any, words: Any, sealed: Any) -> None:
        def make() -> Any:
            mask(self, words, sealed)
            return words.copy()

        before, after = words.copy(), self.masked
        value = coupling.release(VECTOR, before, (coupling.masked_sums, 0.0), make)
        if not self.masked and not after:
            # A replayed vector still has to pass all checks, and to be the only one.
            mask(self, words, sealed)
        words[:] = value

    put(member, "mask", masked)
