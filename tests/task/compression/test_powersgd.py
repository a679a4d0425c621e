from __future__ import annotations

import torch

from task.compression.base import Layout
from tests.task.compression.shared import LAYOUT, built, bytes_of, normal, there_and_back

MATRIX = Layout(((30, 4, 5),))


def test_a_matrix_of_low_rank_comes_back() -> None:
    update = (normal(60, 1).view(30, 2) @ normal(40, 2).view(2, 20)).reshape(-1)
    assert torch.allclose(there_and_back(built("powersgd"), update, MATRIX), update, atol=1e-4)


def test_what_is_no_matrix_or_too_small_comes_back_exactly() -> None:
    update = normal()
    decoded = there_and_back(built("powersgd"), update)
    # (6,), () and (1, 7) of the layout; (6, 4) and (5, 2, 3) travel with rank 2.
    for part in (slice(24, 30), slice(60, 68)):
        assert torch.equal(decoded[part], update[part])
    assert not torch.equal(decoded[:24], update[:24])


def test_a_warm_start_finds_the_best_rank_one() -> None:
    """Power iteration on one matrix ends at its largest singular vectors (Eckart-Young)."""
    largest = torch.outer(normal(30, 1), normal(20, 2)).reshape(-1)
    update, memory, compressor = normal(600) + largest, {}, built("powersgd", rank=1)
    lost = []
    for seed in range(12):
        packet, memory = compressor.encode(update, MATRIX, memory, seed)
        lost.append(float((update - compressor.decode(packet, MATRIX, seed)).norm()))
    values = torch.linalg.svdvals(update.view(30, 20))
    assert abs(lost[-1] - float(values[1:].norm())) < 1e-3 < lost[0] - lost[-1]


def test_the_bytes_of_two_thin_matrices() -> None:
    assert bytes_of(built("powersgd", rank=2), MATRIX) == 4 * 2 * (30 + 20)
    assert bytes_of(built("powersgd", rank=99), LAYOUT) == 4 * LAYOUT.size
