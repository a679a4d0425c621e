"""Nodes that fail, or come while another serves their client, join a run under way later."""

import pytest
from flwr.app import Error, Message

from conf.errors import FedproofError
from conf.schema import FederationConfig
from server_app.compat import adopt_identity, stamp
from server_app.federation.roster import Roster
from task.wire import Cohort

DIGESTS = {"config": "1", "code": "2"}


class Nodes:
    """A Grid whose nodes each serve one client, or fail, or refuse."""

    def __init__(self, **serves):
        adopt_identity(1)
        self.serves = {int(name[1:]): client for name, client in serves.items()}
        self.asked = []

    def get_node_ids(self):
        return list(self.serves)

    def send_and_receive(self, messages, *, timeout=None):
        return [self._answer(stamp(message)) for message in messages]

    def _answer(self, message):
        node = message.metadata.dst_node_id
        self.asked.append(node)
        client = self.serves[node]
        if client == "fails":
            return Message(Error(0, "it crashed"), reply_to=message)
        header = {"clients": [client], "train": [3], "test": [2], "describes": {}} | DIGESTS
        if client == "refuses":
            header = {"refused": "not here."}
        return Message(Cohort(header=header).pack(), reply_to=message)


def gathered(grid):
    roster = Roster(FederationConfig(), DIGESTS)
    roster.gather(grid)
    return roster


def test_a_client_on_two_nodes_ends_a_run_before_it_starts():
    with pytest.raises(FedproofError, match="'va' is served by two nodes"):
        gathered(Nodes(n1="va", n2="va"))


def test_a_silo_that_was_started_again_joins_when_its_old_node_has_left():
    grid = Nodes(n1="va", n2="hungary")
    roster = gathered(grid)
    grid.serves[3] = "va"
    roster.refresh(grid)
    assert roster.members["va"].node == 1
    assert roster.refused == {3: "client 'va' is already served by another node"}
    del grid.serves[1]
    roster.refresh(grid)
    assert roster.members["va"].node == 3 and not roster.refused
    assert set(roster.members) == {"va", "hungary"} and roster.trainable == ["hungary", "va"]


def test_a_node_that_fails_is_asked_again_and_one_that_refuses_is_not():
    grid = Nodes(n1="va", n2="fails", n3="refuses")
    roster = gathered(grid)
    assert set(roster.refused) == {2, 3}
    grid.asked.clear()
    grid.serves |= {2: "hungary", 3: "cleveland"}
    roster.refresh(grid)
    assert grid.asked == [2] and roster.trainable == ["hungary", "va"]
    assert set(roster.refused) == {3}


def test_other_code_is_refused():
    grid = Nodes(n1="va")
    roster = Roster(FederationConfig(), DIGESTS | {"code": "3"})
    with pytest.raises(FedproofError, match="no client can take part: it runs other code"):
        roster.gather(grid)
