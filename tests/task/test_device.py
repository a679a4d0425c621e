"""Which device is meant; and, where there is a GPU, that it learns what the CPU learns."""

import pytest
import torch
from torch import nn

from conf.compose import compose
from conf.digest import config_digest
from conf.errors import FedproofError
from conf.schema import Device, Optimizer, TrainConfig
from task.base import Examples, ModelSpec
from task.device import CPU, device_of
from task.flat import FlatModel
from task.models import lenet
from task.objectives import MultiClass
from task.stacked import train_stacked
from task.stacking import MOST_ON_GPU, stack_size
from task.training import train

SPEC = ModelSpec((1, 16, 16), 3)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.mark.parametrize(("wanted", "there"), [("auto", False), ("cpu", False), ("cpu", True)])
def test_the_cpu_is_meant(wanted, there, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device_of(Device(wanted)) == CPU


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_the_gpu_is_meant(wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert device_of(Device(wanted)) == torch.device("cuda:1")


def test_a_gpu_that_is_not_there_is_missed_before_anything_is_trained(monkeypatch, federate):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FedproofError, match="finds no GPU on this machine: leave it at auto"):
        federate("train.device=cuda", "rounds=1")


def test_the_device_is_each_machines_own_affair():
    assert config_digest(compose(())) == config_digest(compose(("train.device=cpu",)))


def test_stacks_are_larger_on_a_gpu():
    device = torch.device("cuda:0")
    assert stack_size(nn.Linear(10, 10), device) == MOST_ON_GPU
    assert stack_size(nn.Linear(10_000, 10_000), device) == 2


def rows(count):
    return Examples(torch.randn(count, *SPEC.input_shape), torch.randint(0, 3, (count,)))


@gpu
@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_training_on_a_gpu_is_training(optimizer):
    torch.manual_seed(0)
    config = TrainConfig(epochs=2, batch_size=8, lr=0.01, optimizer=optimizer, max_grad_norm=1.0)
    module, examples = lenet.build({}, SPEC), rows(20)
    found = []
    for device in (CPU, device_of(Device.cuda)):
        model = FlatModel(lenet.build({}, SPEC).to(device))
        model.load({key: value.numpy() for key, value in module.state_dict().items()})
        trained = train(
            model, examples.to(device), MultiClass(3), config, seed=3, proximal_mu=0.1
        )  # fmt: skip
        assert model.values().device.type == device.type
        found.append((model.values().cpu(), trained.loss))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-3, atol=1e-4)
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-3)


@gpu
@pytest.mark.parametrize("dense", [True, False])
def test_stacks_on_a_gpu_are_those_on_the_cpu(dense):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(256, 3)) if dense else lenet.build({}, SPEC)
    start = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
    clients, config = [rows(n) for n in (5, 20, 12)], TrainConfig(batch_size=8, lr=0.05)
    values = []
    for device in (CPU, device_of(Device.cuda)):
        there = [client.to(device) for client in clients]
        result, _ = train_stacked(
            module, start.to(device), there, MultiClass(3), config, seeds=[1, 2, 3]
        )
        values.append(result.cpu())
    torch.testing.assert_close(values[1], values[0], rtol=1e-3, atol=1e-4)


@gpu
def test_a_run_on_a_gpu_learns_what_the_cpu_learns(federate):
    told = ("rounds=2", "task.scaling=federated", "model.hidden=[8]")
    pairs = [federate(*told, f"train.device={device}").summary for device in ("cpu", "cuda")]
    assert pairs[1]["held_out"]["loss"] == pytest.approx(pairs[0]["held_out"]["loss"], rel=1e-2)
