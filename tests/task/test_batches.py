"""The order in which rows come."""

import torch

from conf.schema import TrainConfig
from task.batches import batches, epochs, seeded


def test_batches_cover_each_epoch_once():
    torch.manual_seed(0)
    seen = list(batches(10, TrainConfig(epochs=2, batch_size=4)))
    assert [len(index) for index in seen] == [4, 4, 2, 4, 4, 2]
    for epoch in (seen[:3], seen[3:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(10))
    assert len(list(batches(10, TrainConfig(steps=7, batch_size=4)))) == 7


def test_a_generator_of_its_own_gives_the_same_order():
    config = TrainConfig(epochs=3, batch_size=4)
    with seeded(5):
        expected = [order.tolist() for order, _ in epochs(10, config)]
    generator = torch.Generator().manual_seed(5)
    assert [order.tolist() for order, _ in epochs(10, config, generator)] == expected


def test_random_numbers_outside_go_on_as_if_nothing_had_been_seeded():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded(5):
        torch.rand(7)
    assert torch.equal(torch.rand(3), expected)
