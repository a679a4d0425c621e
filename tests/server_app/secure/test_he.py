"""Runs whose server adds up ciphertexts: equal to those that see all, and no more than sums."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from conf.errors import FedproofError
from task.arrays import array_of, values_of
from task.he import ciphertexts
from task.wire import Cohort
from tests.server_app.secure.runs import TASKS, difference

tenseal = pytest.importorskip("tenseal")

RUN = ("task=healthcare", "rounds=2")
HE = (*RUN, "aggregation=he", "aggregation.degree=4096", "aggregation.bits=28")
VARIANTS = {
    "bfv": (),
    "two": ("aggregation.per_slot=2", "aggregation.bits=16", "aggregation.range=1.0",
            "aggregation.max_weight=500", "aggregation.max_clients=4"),
    "ckks": ("aggregation.scheme=ckks",),
}  # fmt: skip


def parts_of(reply) -> dict:
    """Return what each client of a reply answered."""
    return dict(Cohort.unpack(reply.content).parts)


def on(kind: str, change):
    """Return a fault: `change` is given what clients answered to one type of message."""

    def tamper(reply):
        if reply.metadata.message_type == kind:
            cohort = Cohort.unpack(reply.content)
            parts = dict(cohort.parts)
            change(parts)
            reply.content = replace(cohort, parts=parts).pack()
        return reply

    return tamper


def asked(ran, name: str, **facts) -> list[str]:
    """Return the clients that were asked for something, in order."""
    return [
        client
        for message in ran.grid.sent
        for client, told in parts_of(message).items()
        if name in told and all(told[name][key] == value for key, value in facts.items())
    ]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_equals_the_one_without_within_the_error(name, federate):
    plain, hidden = federate(*RUN), federate(*HE, *VARIANTS[name], nodes=2)
    error = sum(line["secure"]["error"] for line in hidden.rounds)
    assert 0 < error < {"bfv": 1e-5, "two": 1e-2, "ckks": 1e-4}[name]
    # The second round starts where the first has led, a little apart.
    assert difference(plain, hidden) <= 2 * error
    for metric, value in plain.summary["held_out"].items():
        assert hidden.summary["held_out"][metric] == pytest.approx(value, abs=10 * error + 1e-6)
    secure = hidden.summary["secure"]
    assert (secure["smallest_sum"], secure["abandoned"]) == (4, 0)
    assert "unless a client gives it the key" in secure["promise"]
    assert all(not line["failed"] and not line["evaluation_failed"] for line in hidden.rounds)
    # The key travels once, before the first round; two clients open each sum.
    assert len(asked(hidden, "offer")) == 4 and len(asked(hidden, "seal")) == 1
    assert len(asked(hidden, "decrypt")) == 8
    assert len(set(asked(hidden, "decrypt"))) > 2


@pytest.mark.parametrize("task", ["digits", "keyboard"])
def test_other_tasks_on_four_nodes_too(federate, task):
    plain = federate(*TASKS[task])
    hidden = federate(*TASKS[task], "aggregation=he", nodes=4)
    error = hidden.summary["secure"]["error"]
    # What a round's encoding changes goes through the training of the rounds after it.
    assert 0 < error < 1e-5 and difference(plain, hidden) <= 20 * error + 1e-6
    assert hidden.summary["held_out"] == pytest.approx(plain.summary["held_out"], abs=2e-3)


def blobs(record) -> list[bytes]:
    """Return all bytes of a record."""
    if isinstance(record, ArrayRecord):
        return [values_of(array).tobytes() for array in record.values()]
    lists = (value if isinstance(value, list) else [value] for value in record.values())
    return [value for values in lists for value in values if isinstance(value, bytes)]


def test_the_server_gets_no_key_and_no_clients_own_figures(federate, monkeypatch):
    contexts, replies = [], []
    make = ciphertexts.server_context
    monkeypatch.setattr(
        ciphertexts, "server_context", lambda known: contexts.append(make(known)) or contexts[-1]
    )

    def keep(reply):
        replies.append(reply)
        return reply

    ran = federate(*HE, "aggregation.scheme=ckks", tamper=keep)
    assert len(contexts) == 2 * 2 + 2 and not any(context.is_private() for context in contexts)
    files = (ran.directory / "clients" / "secrets").glob("*/*")
    files = (path for path in files if not path.suffix and path.name != "settings")
    boxes = [json.loads(path.read_text()) for path in files]
    assert len(boxes) == 4
    (ring,) = {base64.b64decode(box["ring"]) for box in boxes}
    messages = [*replies, *ran.grid.sent]
    seen = [data for m in messages for record in m.content.values() for data in blobs(record)]
    assert sum(len(data) > 10_000 for data in seen) > 20
    for data in seen:
        assert all(ring[at : at + 24] not in data for at in range(200, len(ring), 10_007))
        try:
            context = tenseal.context_from(data)
        except (ValueError, RuntimeError):
            continue
        assert not context.is_private()
    for reply in replies:
        for told in parts_of(reply).values():
            if reply.metadata.message_type in ("train", "evaluate"):
                assert set(told) == {"encrypted", "layout"}
                assert set(told["layout"]) == {"size", "names", "lengths"}
    assert not (ran.directory / "clients.jsonl").read_text()


def test_a_ciphertext_that_was_altered_is_left_out(federate):
    def flip(parts):
        encrypted = parts["cleveland"]["encrypted"]
        data = values_of(encrypted["update"]).copy()
        data[5000] ^= 1
        encrypted["update"] = array_of(data)

    ran = federate(*HE, tamper=on("train", flip))
    for line in ran.rounds:
        assert line["secure"]["sums"] == [3] and list(line["failed"]) == ["cleveland"]
        assert line["failed"]["cleveland"].startswith("client 'cleveland': the ciphertexts are")
        assert "held_out" in line


def test_below_the_least_cohort_nothing_is_opened(federate):
    lost = []

    def lose(parts):
        if not lost:
            lost.extend(list(parts)[:2])
            for client in lost:
                del parts[client]

    ran = federate(*HE, tamper=on("train", lose))
    first, second = ran.rounds
    (why,) = first["secure"]["abandoned"]
    assert why.endswith("2 clients answered, aggregation.min_cohort=3 are needed")
    assert first["answered"] == [] and second["secure"]["sums"] == [4]
    assert len(asked(ran, "decrypt", purpose="train")) == 2
    assert len(asked(ran, "decrypt", purpose="evaluate")) == 4
    assert ran.summary["secure"]["abandoned"] == 1
    # After that, all are asked again which key they have.
    assert len(asked(ran, "offer")) == 2 * 4 and len(asked(ran, "seal")) == 1


def test_openers_that_disagree_are_named(federate):
    def shift(parts):
        client = min(parts)
        if "opened" in parts[client]:
            values = values_of(parts[client]["opened"]["mean"]) + 1e-9
            parts[client]["opened"]["mean"] = array_of(values)

    with pytest.raises(FedproofError, match="secure sums of 3 rounds in a row were abandoned") as e:
        federate(*HE, "rounds=3", "evaluate_every=3", tamper=on("query.secure", shift))
    assert "say that it holds different values" in str(e.value) and str(e.value).count("'") >= 4


def refusing(most):
    """Return a fault: the first of at least so many that are asked does not open the sum."""

    def refuse(parts):
        client = min(parts)
        if "decrypt" in parts[client] and len(parts) >= most:
            parts[client] = RecordDict({"decrypt": ConfigRecord({"refused": "not now"})})

    return on("query.secure", refuse)


def test_one_more_is_asked_where_one_does_not_open(federate):
    ran = federate(*HE, tamper=refusing(2))
    assert ran.summary["secure"]["abandoned"] == 0
    assert len(asked(ran, "decrypt")) == 4 * 3


def test_no_more_are_asked_than_that(federate):
    with pytest.raises(FedproofError, match="1 clients opened it, 2 are needed"):
        federate(*HE, tamper=refusing(1))


def test_more_clients_than_sums_have_room_for_are_refused(federate):
    with pytest.raises(FedproofError, match=r"the 4 clients of round 1 \(train\) are more than"):
        federate(*HE, "aggregation.max_clients=3")


def test_who_is_drawn_later_gets_the_key_in_that_round(federate):
    ran = federate(*HE, "rounds=3", "federation.fraction=0.75", "federation.fraction_evaluate=0.75")
    assert [line["secure"]["sums"] for line in ran.rounds] == [[3]] * 3
    assert sorted(asked(ran, "offer")) == sorted(set(asked(ran, "offer")))
    assert {c for line in ran.rounds for c in line["sampled"]} <= set(asked(ran, "offer"))


def test_means_of_central_privacy_are_not_shown_to_clients(federate):
    with pytest.raises(
        FedproofError, match="choose privacy.placement=local, or aggregation=secagg"
    ):
        federate(*HE, "privacy=client_dp", "privacy.sigma=1.0", "privacy.delta=0.1")
