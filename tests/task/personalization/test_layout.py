"""What travels and what does not: both parts make the model again, and nothing else is let in."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from conf.errors import FedproofError
from task.flat import FlatModel
from task.personalization._layers import last_layers, normalisation
from task.personalization.base import remember
from task.personalization.layout import Layout


def module():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


KEYS = list(module().state_dict())


@given(st.sets(st.sampled_from(KEYS)))
def test_both_parts_make_the_model_again(private):
    initial, model = module(), FlatModel(module())
    layout = Layout(initial, private)
    values = layout.of(model.values())
    assert len(values) == layout.size
    shared = {key: v.numpy() for key, v in layout.state_of(model, values, 0).items()}
    assert list(shared) == [key for key in KEYS if key not in private]
    state = model.module.state_dict()
    whole = layout.complete(shared, remember({key: state[key] for key in private}))
    assert all(torch.equal(torch.from_numpy(whole[key]), state[key]) for key in KEYS)
    new = layout.complete(shared, {})
    for key in KEYS:
        expected = initial.state_dict()[key] if key in private else state[key]
        assert torch.equal(torch.from_numpy(new[key]), expected)


def test_a_server_cannot_set_what_is_private():
    layout = Layout(module(), {"3.bias"})
    whole = {key: value.numpy() for key, value in module().state_dict().items()}
    with pytest.raises(RuntimeError, match="other parameters than those that are shared"):
        layout.complete(whole, {})


def test_layers_are_found_by_what_they_are_and_where():
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert normalisation(module()) == {f"1.{name}" for name in {"weight", "bias", *statistics}}
    assert last_layers(module(), 0) == frozenset()
    assert last_layers(module(), 1) == {"3.weight", "3.bias"}
    assert last_layers(module(), 2) == last_layers(module(), 1) | normalisation(module())
    with pytest.raises(FedproofError, match="leaves nothing to share"):
        last_layers(module(), 3)
