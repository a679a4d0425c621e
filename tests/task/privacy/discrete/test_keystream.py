"""The stream is AES-256-CTR, and its numbers are what they say."""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from task.privacy.discrete.keystream import KeyStream

KEY = bytes(range(32))


def test_words_are_the_ciphers_and_go_on_where_they_stopped():
    stream = KeyStream(KEY)
    drawn = np.concatenate([stream.words(count) for count in (3, 1, 0, 7)])
    expected = Cipher(AES(KEY), CTR(bytes(16))).encryptor().update(bytes(8 * 11))
    assert drawn.astype("<u8").tobytes() == expected


def test_keys_come_from_the_operating_system():
    assert not np.array_equal(KeyStream().words(4), KeyStream().words(4))


def test_public_streams_depend_on_seed_and_purpose():
    def drawn(purpose: str, seed: bytes) -> list[int]:
        return list(KeyStream.public(purpose, seed).words(2))

    assert drawn("a", b"x") == drawn("a", b"x")
    assert drawn("a", b"x") != drawn("a", b"y")
    assert drawn("a", b"x") != drawn("b", b"x")


def test_uniform_numbers_and_signs():
    uniform = KeyStream(KEY).uniform(200_000)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 200_000)
    signs = KeyStream(KEY).signs(100_001)
    assert len(signs) == 100_001 and set(signs) == {-1.0, 1.0}
    assert abs(signs.sum()) < 4 * np.sqrt(100_001)
