import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from task.privacy.adaptive import AdaptiveClip
from task.privacy.noise import SecureNoise


@given(st.floats(0.05, 20.0), st.floats(1.0, 1e5))
def test_sum_and_count_together_cost_what_the_sum_would_alone(sigma, expected):
    clip = AdaptiveClip(0.5, 0.2, sigma, expected)
    # Andrew et al. 2021, Theorem 1: precisions of the two Gaussians add up.
    both = clip.sigma_sum**-2 + (clip.sigma_count / 0.5) ** -2
    assert both**-0.5 == pytest.approx(sigma, rel=1e-9)
    assert sigma <= clip.sigma_sum <= 1.2 * sigma


@pytest.mark.parametrize("start", [0.01, 100.0])
def test_the_clip_finds_the_quantile(start):
    generator = torch.Generator().manual_seed(1)
    norms = torch.rand(200, generator=generator) * 2
    adaptive = AdaptiveClip(0.7, 0.2, 1.0, len(norms))
    clip, noise = start, SecureNoise(bytes(32))
    for _ in range(200):
        clip = adaptive.updated(clip, float((norms <= clip).sum()) - 100, noise)
    assert clip == pytest.approx(1.4, rel=0.15)


def test_the_count_is_noised():
    noise = SecureNoise(bytes(32))
    adaptive = AdaptiveClip(0.5, 1.0, 1.0, 100.0)
    shares = [0.5 - math.log(adaptive.updated(1.0, 0.0, noise)) / 1.0 for _ in range(4000)]
    deviation = torch.tensor(shares).std().item()
    assert deviation == pytest.approx(adaptive.sigma_count / 100, rel=0.05)
