"""FedAvg's clients: what stands between a client's message and its training changes nothing."""

import torch

from conf.compose import compose
from task.base import Examples
from task.client_update import update_of
from task.client_update.base import ClientUpdate, Work
from task.flat import FlatModel
from task.objectives import MultiClass
from task.training import train


def model():
    torch.manual_seed(1)
    return FlatModel(torch.nn.Linear(3, 2))


def test_a_strategy_without_a_clients_half_trains_as_fedavg():
    assert type(update_of(compose(("strategy=fedadam",)))) is ClientUpdate


def test_fedavgs_clients_train_and_send_their_model():
    data = Examples(torch.randn(9, 3), torch.randint(2, (9,)))
    config = compose(("train.batch_size=2", "train.momentum=0.5")).train
    mine, plain = model(), model()
    update = ClientUpdate().run(Work(mine, data, MultiClass(2), config, seed=5, proximal_mu=0.1))
    trained = train(plain, data, MultiClass(2), config, seed=5, proximal_mu=0.1)
    assert torch.equal(update.values, plain.values())
    assert (update.trained.loss, update.trained.steps) == (trained.loss, trained.steps)
    assert torch.equal(update.trained.memory["velocity"], trained.memory["velocity"])
    assert not update.sent
