"""What the server saw does not depend on a client's vector, but on the sum."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from scipy import stats

from task.secagg import client, shamir
from task.secagg.encoding import Encoding
from task.secagg.masks import TYPES, add_masks
from task.secagg.session import self_mask
from tests.task.secagg.protocol import TERMS, Run

SESSIONS, SIZE = 60, 256
CHANCE = 1e-9
"""Probability below which a test of uniform numbers fails."""


def inputs(bits: int) -> dict[str, np.ndarray]:
    """Vectors of three clients as different as they get, with the same sum."""
    high = np.uint64(2**bits - 1)
    zeros = np.zeros((3, SIZE), np.uint64)
    uneven = np.array([np.full(SIZE, high), np.full(SIZE, 1), np.zeros(SIZE)], np.uint64)
    return {"zeros": zeros, "uneven": uneven}


def uniform(words: np.ndarray) -> float:
    """Return the smallest p of tests whether words are uniform, bytes and bits included."""
    data = words.view(np.uint8).reshape(-1, words.itemsize)
    bytes_ = [stats.chisquare(np.bincount(column, minlength=256)).pvalue for column in data.T]
    ones = int(np.unpackbits(data).sum())
    whole = stats.kstest(words / 2.0 ** (8 * words.itemsize), "uniform").pvalue
    lag = np.corrcoef(words[:-1].astype(float), words[1:].astype(float))[0, 1]
    return float(
        min(
            *bytes_,
            whole,
            stats.binomtest(ones, 8 * data.size).pvalue,
            2 * stats.norm.sf(abs(lag) * np.sqrt(len(words))),
        )
    )


@pytest.fixture(scope="module", params=[16, 32])
def seen(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    """Masked vectors of each client over fresh sessions, and after the server took off all it can.

    By input: shape (2, 3, sessions x size).
    """
    terms, found = replace(TERMS, bits=request.param), {}
    for name, vectors in inputs(request.param).items():
        masked, bare = [], []
        for number in range(SESSIONS):
            run = Run(3, terms, SIZE, number)
            run.share(range(3))
            sent = run.mask(range(3), vectors)
            run.agree(range(3))
            run.unmask(range(3))
            masked.append([sent[i] for i in range(3)])
            rest = [sent[i].copy() for i in range(3)]
            for i in range(3):
                seed = self_mask(run.session().root, i, run.server._secret(i))
                add_masks(rest[i], [], [seed])
            bare.append(rest)
            assert not run.server.total().any()
        kinds = np.array([masked, bare], TYPES[request.param])
        found[name] = kinds.transpose(0, 2, 1, 3).reshape(2, 3, -1)
    return found


@pytest.mark.parametrize("name", ["zeros", "uneven"])
def test_masked_vectors_are_uniform_whatever_is_under_them(seen, name):
    masked, bare = seen[name]
    for words in (*masked, *bare):
        assert uniform(words) > CHANCE
    # The sum of all self masks hides even the sum, until they are revealed.
    assert uniform(masked.sum(axis=0, dtype=masked.dtype)) > CHANCE


@pytest.mark.parametrize("name", ["zeros", "uneven"])
def test_sums_of_some_are_uniform_too(seen, name):
    masked, bare = seen[name]
    for pair in itertools.combinations(range(3), 2):
        for words in (masked, bare):
            assert uniform(words[list(pair)].sum(axis=0, dtype=words.dtype)) > CHANCE
            assert uniform(words[pair[0]] - words[pair[1]]) > CHANCE
    # All of them together are the sum, which is public.
    assert not bare.sum(axis=0, dtype=bare.dtype).any()


def test_two_inputs_look_the_same(seen):
    for kind, i in itertools.product(range(2), range(3)):
        one, other = seen["zeros"][kind, i], seen["uneven"][kind, i]
        assert stats.ks_2samp(one.astype(float), other.astype(float)).pvalue > CHANCE
        counts = [np.bincount(w >> 8 * (w.itemsize - 1), minlength=256) for w in (one, other)]
        assert stats.chi2_contingency(counts).pvalue > CHANCE


def test_the_tests_notice_what_is_not_masked():
    """They fail for vectors in the clear, and for a mask that is half as wide."""
    rng = np.random.default_rng(1)
    count = SESSIONS * SIZE
    for words in (
        np.arange(count, dtype=np.uint32),
        rng.integers(0, 2**31, count, np.uint32),
        rng.integers(0, 2**32, count, np.uint32) & np.uint32(0xFFFFFFF0),
        np.repeat(rng.integers(0, 2**32, count // 2, np.uint32), 2),
    ):
        assert uniform(words) < CHANCE
    assert uniform(rng.integers(0, 2**32, count, np.uint32)) > CHANCE


class Fixed:
    """The same secrets in each session, drawn in the same order."""

    def __init__(self) -> None:
        self._count = 0

    def bytes(self, size: int) -> bytes:
        self._count += 1
        # The first byte is zero, so that it is below the prime.
        return bytes(1) + hashlib.shake_256(str(self._count).encode()).digest(size - 1)

    def below(self, bound: int) -> int:
        return int.from_bytes(self.bytes(32), "big") % bound


def transcript(
    monkeypatch: pytest.MonkeyPatch, vectors: np.ndarray, lost: tuple[int, ...]
) -> tuple[dict[str, object], dict[int, np.ndarray], np.ndarray]:
    """Return all that the server got but masked vectors; those; and the total."""
    fixed, load = Fixed(), X25519PrivateKey.from_private_bytes
    monkeypatch.setattr(X25519PrivateKey, "generate", lambda: load(fixed.bytes(32)))
    monkeypatch.setattr(client, "new_secret", lambda: fixed.bytes(32))
    monkeypatch.setattr(client.os, "urandom", fixed.bytes)
    monkeypatch.setattr(shamir.secrets, "randbelow", fixed.below)
    clients = len(vectors)
    run, there = Run(clients, size=vectors.shape[1]), [i for i in range(clients) if i not in lost]
    run.share(range(clients))
    sent = run.mask(there, vectors)
    run.agree(there)
    run.unmask(there)
    server, names = run.server, ("_sealed", "_commitments", "_signatures", "_shares", "alive")
    got = {name: getattr(server, name) for name in names}
    monkeypatch.undo()
    return {"adverts": run.adverts, **got}, sent, server.total()


@pytest.mark.parametrize("lost", [(), (3,)])
def test_two_inputs_of_one_sum_have_one_transcript(monkeypatch, lost):
    rng = np.random.default_rng(3)
    one = rng.integers(0, 2**32, (5, SIZE), np.uint32)
    shift = rng.integers(0, 2**32, SIZE, np.uint32)
    other = one.copy()
    other[0], other[4] = one[0] + shift, one[4] - shift
    runs = [transcript(monkeypatch, vectors.astype(np.uint64), lost) for vectors in (one, other)]
    assert runs[0][0] == runs[1][0]
    np.testing.assert_array_equal(runs[0][2], runs[1][2])
    # The masks are the same, so what is under them is all that differs in the masked vectors;
    # and they are uniform but for their sum (above).
    for i, words in runs[0][1].items():
        np.testing.assert_array_equal(runs[1][1][i] - words, other[i] - one[i])


def test_secrets_are_fresh_outside_this_file():
    runs = [Run(3, size=SIZE), Run(3, size=SIZE)]
    vectors = np.zeros((3, SIZE), np.uint64)
    sent = []
    for run in runs:
        run.share(range(3))
        sent.append(run.mask(range(3), vectors))
    one, other = runs
    for i in range(3):
        assert (sent[0][i] != sent[1][i]).mean() > 0.9
        assert one.members[i].secret != other.members[i].secret
        assert one.server._commitments[i] != other.server._commitments[i]
        assert not set(one.server._sealed[i].values()) & set(other.server._sealed[i].values())
    nonces = [
        s[:12] for run in runs for dealt in run.server._sealed.values() for s in dealt.values()
    ]
    assert len(set(nonces)) == len(nonces) == 12


@pytest.mark.parametrize("bits", [16, 32])
def test_weights_and_metrics_of_one_client_do_not_show(bits):
    """They travel under the mask; the server's view holds their sum only."""
    terms = replace(TERMS, bits=bits)
    encoding = Encoding(terms, 3, size=4, figures=3)
    figures = [[731.0, 0.8214, 55.5], [44.0, 0.11, -3.25], [912.0, 0.5, 7.0]]
    vectors = np.array(
        [encoding.encode(torch.ones(4), int(row[0]), row) for row in figures], np.uint64
    )
    pieces = vectors[:, 4:]
    columns: list[list[np.ndarray]] = [[], [], []]
    for number in range(300):
        run = Run(3, terms, encoding.length, number)
        run.share(range(3))
        sent = run.mask(range(3), vectors)
        run.agree(range(3))
        run.unmask(range(3))
        for i in range(3):
            columns[i].append(sent[i][4:])
    _, read = encoding.decode(run.server.total(), 3)
    np.testing.assert_allclose(read, np.sum(figures, axis=0), atol=3 * 2.0**-20)
    for i in range(3):
        words = np.array(columns[i])
        assert uniform(words.ravel()) > CHANCE
        # As often as by chance, 300 x 15 of 65536 at most.
        assert (words == pieces[i]).sum() < 20
