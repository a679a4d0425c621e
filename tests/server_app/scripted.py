"""Nodes that answer in the order, and with the faults, that a test's script says."""

from types import SimpleNamespace

import numpy as np
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.run import Run

from server_app.compat import stamp
from server_app.federation.exchange import ExchangeGrid
from task.wire import Cohort

DIGESTS = {"config": "c", "code": "d"}
FAULTS = ("nan", "billion", "shape", "twice", "raises", "refuses", "unsent", "late")
NAMED = {
    "nan": "NaN or infinity", "billion": "claims 1000000000 examples", "shape": "has shape",
    "twice": "answered more than once", "raises": "its ClientApp failed", "refuses": "no thanks",
    "unsent": "could not be sent", "late": "no answer in time",
}  # fmt: skip


class Clock:
    """Stands for the module ``time``: hours pass in no time."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    thread_time = monotonic

    def sleep(self, seconds):
        self.now += seconds


def moved(client, version):
    """Return what a client's training changes of the model after so many flushes."""
    return np.random.default_rng([ord(client[0]), version]).normal(size=3).astype(np.float32)


class Scripted(ExchangeGrid):
    """Each message's fate is the next of a script; of those sent, a script says who is next.

    Attributes
    ----------
    log : list of (str, int, str)
        Client, version of its model and fate of every message.
    """

    run = Run.create_empty(1)

    def __init__(self, members, fates, order, clock):
        self.members, self.clock = members, clock
        self.fates, self.order = iter(fates), iter(order)
        self.log, self.out, self.old = [], {}, []
        self.busiest, self.given_up = 0, set()

    def set_run(self, run): ...

    def get_node_ids(self):
        return sorted({member.node for member in self.members.values()})

    def send_and_receive(self, messages, *, timeout=None):
        raise AssertionError("nobody waits for all")

    def push_messages(self, messages):
        return [self._push(message) for message in messages]

    def _push(self, message):
        # Their deadline passed while somebody else was told of.
        self._give_up(self.given_up & set(self.out))
        ((client, told),) = Cohort.unpack(message.content).parts.items()
        version = int(told["config"]["server-round"]) - 1
        fate = next(self.fates, "good")
        self.log.append((client, version, fate))
        if fate == "unsent":
            return None
        number = stamp(message).metadata.message_id
        start = told["arrays"]["weight"].numpy()
        self.out[number] = (message, fate, client, start + moved(client, version))
        nodes = [sent.metadata.dst_node_id for sent, *_ in self.out.values()]
        assert len(set(nodes)) == len(nodes)
        self.busiest = max(self.busiest, len(nodes))
        return number

    def pull_messages(self, message_ids):
        assert set(message_ids) <= set(self.out)
        ready = [n for n in message_ids if self.out[n][1] != "late"]
        if not ready and self.given_up != set(message_ids):
            # They are asked for once more when it is too late.
            self.given_up = set(message_ids)
            self.clock.sleep(1000.0)
            return []
        # Whose work was given up answers all the same, now that somebody else is waited for.
        late, self.old = self.old, []
        if not ready:
            self._give_up(message_ids)
            return late
        picked = sorted(ready, key=list(self.out).index)[next(self.order, 0) % len(ready)]
        message, fate, client, values = self.out.pop(picked)
        replies = [self._reply(message, fate, client, values)]
        return late + replies * (2 if fate == "twice" else 1)

    def _give_up(self, message_ids):
        self.old += [self._reply(*self.out.pop(number)) for number in list(message_ids)]

    def _reply(self, message, fate, client, values):
        if fate == "raises":
            return Message(Error(2, "broken"), reply_to=message)
        if fate == "refuses":
            refusal = Cohort(header={"refused": "no thanks", **DIGESTS}).pack()
            return Message(refusal, reply_to=message)
        if fate == "nan":
            values = values * np.nan
        rows = 10**9 if fate == "billion" else self.members[client].train
        answer = {
            "arrays": ArrayRecord({"weight": Array(values[:, :2] if fate == "shape" else values)})
        }
        answer["metrics"] = MetricRecord({"num-examples": rows, "steps": 1, "loss": 1.0})
        return Message(
            Cohort({client: RecordDict(answer)}, header=DIGESTS).pack(), reply_to=message
        )


def members(nodes):
    """Return clients by the nodes that they are on: with 5, 6, 7 … rows."""
    return {
        client: SimpleNamespace(node=node, train=5 + i, test=1)
        for i, (client, node) in enumerate(nodes.items())
    }
