"""Which clients are stacked, and with whom."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conf.schema import Optimizer, TrainConfig
from task.stacking import MOST, dense_layers, obstacle, stack_size, stacks


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 99)), st.integers(1, MOST))
@settings(max_examples=100, deadline=None)
def test_stacks_hold_everyone_once(rows, size):
    found = stacks(rows, size)
    assert sorted(c for stack in found for c in stack) == sorted(rows)
    assert all(1 <= len(stack) <= size for stack in found)
    assert found == stacks(dict(reversed(rows.items())), size)


@given(st.lists(st.integers(0, 999), min_size=1), st.integers(2, MOST))
@settings(max_examples=100, deadline=None)
def test_stacks_have_about_as_many_rows_each(counts, size):
    rows = {str(i): count for i, count in enumerate(counts)}
    loads = [sum(rows[client] for client in stack) for stack in stacks(rows, size)]
    aim = sum(counts) / (4 * math.ceil(len(counts) / (4 * size)))
    assert max(loads) <= max(2 * aim, *counts, 0)


@pytest.mark.parametrize("count", [3, 10, 50, 64, 1000])
def test_clients_alike_make_stacks_alike(count):
    lengths = [len(stack) for stack in stacks({str(i): 50 for i in range(count)}, MOST)]
    assert max(lengths) - min(lengths) <= 1 and (count < 4 or len(lengths) % 4 == 0)


def test_dense_layers():
    first, last = nn.Linear(3, 2), nn.Linear(2, 1)
    assert dense_layers(nn.Sequential(nn.Flatten(), first, nn.ReLU(), last)) == [first, last]
    assert dense_layers(first) == [first]
    for other in (
        nn.Sequential(first, last),
        nn.Sequential(first, nn.ReLU()),
        nn.Sequential(first, nn.Tanh(), last),
        nn.Sequential(nn.Linear(3, 1, bias=False)),
        nn.Sequential(),
        nn.Conv2d(1, 1, 1),
    ):
        assert dense_layers(other) == []


@pytest.mark.parametrize(
    ("module", "config", "reason"),
    [
        (nn.Linear(1, 1), TrainConfig(optimizer=Optimizer.adam), "train.optimizer=sgd"),
        (nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.1)), TrainConfig(), "dropout"),
        (nn.LSTM(1, 1), TrainConfig(), "recurrent"),
        (nn.BatchNorm1d(1), TrainConfig(), "buffers"),
        (nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.0)), TrainConfig(), None),
    ],
)
def test_obstacles(module, config, reason):
    found = obstacle(module, config)
    assert found is None if reason is None else reason in found


def test_a_large_model_is_not_stacked():
    assert stack_size(nn.Linear(10, 10)) == MOST
    with torch.device("meta"):
        assert stack_size(nn.Linear(6000, 1000)) == 2
        assert stack_size(nn.Linear(6000, 6000)) == 1
