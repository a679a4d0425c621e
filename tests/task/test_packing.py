from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from conf.compose import compose
from conf.errors import FedproofError
from server_app.checkpoint import to_arrays
from task.arrays import values_of
from task.compression import compressors_of
from task.compression.base import MalformedError
from task.flat import FlatModel
from task.packing import Packing


def module() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 4))


def packing(*overrides: str) -> Packing:
    compressors = compressors_of(compose(overrides))
    assert compressors is not None
    return Packing(*compressors, 42, module())


def updates(count: int) -> list[torch.Tensor]:
    size = len(FlatModel(module()).values())
    return [torch.randn(size, generator=torch.Generator().manual_seed(n)) for n in range(count)]


def read(arrays):
    return {name: values_of(array) for name, array in arrays.items()}


@pytest.mark.parametrize("name", ["fp16", "int8", "quantize", "topk", "random_mask", "powersgd"])
def test_both_sides_read_the_same(name: str) -> None:
    ours, theirs = packing(f"compression={name}"), packing(f"compression={name}")
    (update,) = updates(1)
    arrays, decoded, _ = ours.pack(update, {}, (3, "va"), None)
    assert torch.equal(theirs.unpack(read(arrays), (3, "va"), None), decoded)
    rest = FlatModel(module()).trainable == 0
    # BatchNorm's mean, variance and counter.
    assert rest.sum() == 33
    assert torch.equal(decoded[rest], update[rest]) and not torch.equal(decoded, update)


@pytest.mark.parametrize("name", ["topk", "random_mask", "powersgd"])
@pytest.mark.parametrize("clip", [None, 2.0])
def test_what_was_sent_and_what_waits_are_all_updates(name: str, clip: float | None) -> None:
    subject, memory = packing(f"compression={name}"), {}
    assert subject.keeps
    sent = []
    for number, update in enumerate(updates(5)):
        _, decoded, memory = subject.pack(update, memory, (number, "va"), clip)
        sent.append(decoded)
        assert clip is None or decoded.double().norm() <= clip
    if clip is None:
        mine = FlatModel(module()).trainable == 1
        total = sum(sent)[mine] + memory["residual"]
        assert torch.allclose(total, sum(updates(5))[mine], atol=1e-4)


@pytest.mark.parametrize("name", ["fp16", "bf16", "int8", "quantize", "topk", "random_mask"])
def test_no_update_is_read_as_longer_than_the_clip(name: str) -> None:
    """Rounding up lengthens updates, one bit per value by far: the server shortens them again."""
    more = {
        "quantize": ["compression.bits=1"], "random_mask": ["compression.error_feedback=false"]
    }.get(name, [])  # fmt: skip
    subject = packing(f"compression={name}", *more)
    for number, update in enumerate(updates(4)):
        clipped = update / update.norm()
        arrays, _, _ = subject.pack(clipped, {}, (number, "va"), None)
        assert subject.unpack(read(arrays), (number, "va"), 1.0).double().norm() <= 1.0


def test_the_rest_is_checked() -> None:
    subject = packing("compression=int8")
    arrays, _, _ = subject.pack(updates(1)[0], {}, (1, "va"), None)
    told = read(arrays)
    for rest in (None, np.zeros(32, np.float32), np.full(33, np.nan, np.float32)):
        with pytest.raises(MalformedError, match="'rest'"):
            subject.unpack(told | {"rest": rest}, (1, "va"), None)


@pytest.mark.parametrize(("down", "error"), [("fp16", 2**-11), ("bf16", 2**-8), ("int8", 1 / 127)])
def test_models_travel_short_and_statistics_as_they_are(down: str, error: float) -> None:
    subject = packing("compression=topk", f"compression.down={down}")
    state = {key: value.numpy() for key, value in module().state_dict().items()}
    state["1.num_batches_tracked"] = np.array(2**40 + 1)
    sent = subject.pack_model(to_arrays(state), 1)
    model = subject.state_of(sent)
    assert list(model) == list(state)
    for key, value in state.items():
        assert model[key].shape == value.shape and model[key].dtype == value.dtype
        if "running" in key or "tracked" in key:
            assert np.array_equal(model[key], value)
        else:
            # The largest value of all, since they may share a block.
            assert np.abs(model[key] - value).max() <= error


def test_a_model_that_cannot_be_read() -> None:
    subject = packing("compression=topk", "compression.down=int8")
    plain = to_arrays({key: value.numpy() for key, value in module().state_dict().items()})
    with pytest.raises(FedproofError, match="the server's compressed model holds no 'values'"):
        subject.state_of(plain)
