import pytest

from conf.compose import compose
from conf.errors import FedproofError

CLUSTER = ("federation=flower", "federation.ray=127.0.0.1:6379", "federation.nodes=2")


def test_a_ray_cluster_by_its_address():
    assert compose(CLUSTER).federation.ray == "127.0.0.1:6379"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("federation.ray=127.0.0.1:6379",), "works with federation=flower only"),
        (CLUSTER[:2], "needs federation.nodes=N"),
        ((*CLUSTER, "federation.ray=auto"), "federation.ray=auto is no HOST:PORT"),
        ((*CLUSTER, "federation.ray='ray://head:10001'"), "is no HOST:PORT"),
    ],
)
def test_a_ray_cluster_that_cannot_be_used(overrides, sentence):
    with pytest.raises(FedproofError, match=sentence):
        compose(overrides)


def test_plain_sgd_has_nothing_to_keep():
    with pytest.raises(FedproofError, match=r"keep_optimizer=true has nothing to keep: give"):
        compose(("train.keep_optimizer=true",))
    assert compose(("train.keep_optimizer=true", "train.optimizer=adam")).train.keep_optimizer
