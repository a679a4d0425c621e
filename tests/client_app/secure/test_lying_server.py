"""What a server that lies in secure aggregation gets of silos that know each other: no second sum.

Each test is one attack on a sentence of docs/threat-model.md: the silos' part is the real one, and
the server's is whatever it likes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, RecordDict

from client_app.secure.box import Place
from client_app.secure.revealed import Question
from client_app.secure.secagg import SecAggClients
from client_app.secure.trust import Trust
from conf.compose import compose
from conf.errors import FedproofError
from server_app.secure.collected import Purpose
from server_app.secure.group import Group
from task.identity import Identity
from task.layouts import Layout
from task.refusals import Refusal
from task.secagg.session import Advert, FreshKeys, bits_of
from task.secure import protection_of
from task.secure.kinds import Kind
from task.secure.secagg import SecAgg

NAMES = ("a", "b", "c", "d", "e")
RUN = "7"
MODEL, OTHER = b"model", b"another model"
UPDATE = torch.linspace(-1.0, 1.0, 10)


def protection(*overrides: str) -> SecAgg:
    found = protection_of(compose(("task=healthcare", "aggregation=secagg", *overrides)))
    assert isinstance(found, SecAgg)
    return found


class LastLine(logging.Handler):
    """What was logged last."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


class Silos:
    """Five silos, and a server that may ask them for anything."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.folder = folder
        self.protection = protection(*overrides)
        self.identities = {name: Identity() for name in NAMES}
        self.roster = folder / "roster"
        lines = (f"{key.public.hex()} {name}\n" for name, key in self.identities.items())
        self.roster.write_text("".join(lines))
        for name, key in self.identities.items():
            key.write(folder / f"{name}.key")
        self.log = LastLine()
        logging.getLogger("client_app.secure.requests").addHandler(self.log)
        self.start(RUN)

    def start(self, run: str, settings: str = "settings") -> None:
        """Let all silos answer another run, or one of other settings."""
        self.run = run
        self.silos = {
            name: SecAggClients(
                self.protection,
                Trust(self.folder, self.folder / f"{name}.key", self.roster, simulated=False),
                Place(self.folder / f"{name}.secrets", run, settings),
                lambda *_: None,
            )
            for name in NAMES
        }

    def ask(self, client: str, request: str, told: RecordDict) -> ConfigRecord:
        answer = self.silos[client].answer(client, told)[request]
        assert isinstance(answer, ConfigRecord)
        if "refused" in answer:
            # The server is told one fixed sentence, the silo's log which.
            assert answer["refused"] == Refusal.secure
            raise FedproofError(self.log.last)
        return answer

    def advert(self, client: str) -> Advert:
        told = self.ask(client, "advertise", RecordDict({"advertise": ConfigRecord()}))
        return Advert.unpack(client, bytes(told["advert"]))  # type: ignore[arg-type]

    def group(self, cohort: Sequence[str], number: int, purpose: str = "train") -> Group:
        """Return a session whose clients were not asked yet."""
        adverts = [self.advert(client) for client in cohort]
        told = Purpose(purpose, number, tuple(cohort))
        return Group(self.protection, self.run, told, adverts)

    def deal(self, group: Group) -> Group:
        for client, told in group.requests().items():
            group.take_shares(client, self.ask(client, "share", told))
        return group

    def mask(self, group: Group, client: str, **asked: object) -> RecordDict:
        session = group.server.session
        question = Question(Kind(session.purpose), session.number, MODEL, group.delivery(client))
        answer, _ = self.silos[client].hidden(
            client, replace(question, **asked), UPDATE, 10, {"num-examples": [10.0]}
        )
        return answer

    def gather(self, group: Group, clients: Sequence[str], **asked: object) -> None:
        answers = {client: self.mask(group, client, **asked) for client in clients}
        group.expect([Layout.unpack(answers[clients[0]]["layout"])])  # type: ignore[arg-type]
        for client, answer in answers.items():
            group.add(client, answer)

    def agree(self, group: Group, alive: bytes | None = None) -> None:
        told = {"root": group.server.session.root, "alive": alive or group.server.arrived}
        for client in group.alive:
            answer = self.ask(client, "agree", RecordDict({"agree": ConfigRecord(told)}))
            number = group.server.numbers[client]
            group.server.take_signature(number, bytes(answer["signature"]))  # type: ignore[arg-type]

    def unmask(self, group: Group) -> None:
        for client, told in group.unmasking().items():
            group.take_unmasking(client, self.ask(client, "unmask", told))

    def sum(
        self, cohort: Sequence[str], number: int, lost: Sequence[str] = (), **asked: object
    ) -> np.ndarray:
        """Return the sum of all but the lost ones' updates, each of which weighs 10."""
        kind = asked.get("kind", Kind.TRAIN)
        group = self.deal(self.group(cohort, number, str(kind)))
        self.gather(group, [client for client in cohort if client not in lost], **asked)
        self.agree(group)
        self.unmask(group)
        return group.sum().update


@pytest.fixture
def silos(tmp_path: Path) -> Silos:
    return Silos(tmp_path)


def test_honest_rounds(silos: Silos) -> None:
    """What follows is refused for its own sake."""
    for number, model in ((1, MODEL), (2, OTHER)):
        found = silos.sum(NAMES, number, model=model)
        np.testing.assert_allclose(found, 50 * UPDATE.numpy(), atol=1e-3)
        silos.sum(NAMES, number, kind=Kind.EVALUATE, model=model)


@pytest.mark.parametrize("purpose", ["train ", "Train", "TRAIN", "validate", "", "train\0"])
def test_a_purpose_of_the_server_s_invention(silos: Silos, purpose: str) -> None:
    silos.sum(NAMES, 1)
    with pytest.raises(FedproofError, match="neither training nor evaluation"):
        silos.deal(silos.group(NAMES[1:], 1, purpose))


def test_another_name_of_the_run(silos: Silos) -> None:
    """Clients know the run by Flower's id: a session of any other name is none of theirs."""
    silos.sum(NAMES, 1)
    silos.run = "another"
    with pytest.raises(FedproofError, match="before, and sums over other cohorts"):
        silos.deal(silos.group(NAMES[1:], 1))
    group = silos.deal(silos.group(NAMES[1:], 2))
    with pytest.raises(FedproofError, match="takes part in no such secure sum"):
        silos.mask(group, "b")


def test_a_session_of_evaluation_masks_no_training(silos: Silos) -> None:
    group = silos.deal(silos.group(NAMES, 1, "evaluate"))
    with pytest.raises(FedproofError, match="not what the message asks for"):
        silos.mask(group, "a", kind=Kind.TRAIN)
    other = silos.deal(silos.group(NAMES, 1))
    with pytest.raises(FedproofError, match="not what the message asks for"):
        silos.mask(other, "a", kind=Kind.EVALUATE)
    with pytest.raises(FedproofError, match="not what the message asks for"):
        silos.mask(other, "a", number=2)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_the_same_round_or_an_earlier_one_with_another_cohort(silos: Silos, number: int) -> None:
    silos.sum(NAMES, 3)
    with pytest.raises(FedproofError, match="this round or a later one before"):
        silos.deal(silos.group(NAMES[1:], number))
    # Of the other kind there was none yet.
    silos.sum(NAMES, number + 1, kind=Kind.EVALUATE)


def test_two_sessions_of_one_round_that_are_both_dealt_beforehand(silos: Silos) -> None:
    """A cohort may change before its round; the session that was dealt first is forgotten then."""
    first = silos.deal(silos.group(NAMES, 1))
    second = silos.deal(silos.group(NAMES[1:], 1))
    with pytest.raises(FedproofError, match="takes part in no such secure sum"):
        silos.mask(first, "b")
    silos.gather(second, NAMES[1:])
    # Only "a" was not asked the second time, and one vector is none that can be opened.
    silos.mask(first, "a")
    told = ConfigRecord({"root": first.server.session.root, "alive": bits_of([True] * 5)})
    with pytest.raises(FedproofError, match="takes part in no such secure sum"):
        silos.ask("b", "agree", RecordDict({"agree": told}))


@pytest.mark.parametrize("model", [MODEL, OTHER])
def test_a_later_round_with_the_same_model_and_another_cohort(silos: Silos, model: bytes) -> None:
    """The difference of the two sums would be the answer of the client that is missing."""
    silos.sum(NAMES, 1)
    silos.sum(NAMES, 2)
    if model == OTHER:
        silos.sum(NAMES[1:], 3, model=model)
        return
    with pytest.raises(FedproofError, match="of this very model over another cohort"):
        silos.sum(NAMES[1:], 3)
    # Nor by calling one of the same cohort gone: nobody reveals shares of that.
    with pytest.raises(FedproofError, match="of this very model over another cohort"):
        silos.sum(NAMES, 4, lost=("a",))
    silos.sum(NAMES, 5)


def test_the_same_model_in_another_run(silos: Silos) -> None:
    """A run that is resumed is another one for Flower; one of other settings asks another thing."""
    silos.sum(NAMES, 1)
    silos.start("8")
    with pytest.raises(FedproofError, match="of this very model over another cohort"):
        silos.sum(NAMES[1:], 1)
    silos.sum(NAMES, 2)
    silos.start("9", settings="others")
    silos.sum(NAMES[1:], 1)


def test_a_round_that_was_abandoned_before_shares_were_revealed_may_be_tried_again(
    silos: Silos,
) -> None:
    group = silos.deal(silos.group(NAMES, 1))
    silos.gather(group, NAMES)
    silos.agree(group)
    # The server went away, or a silo did, and is missing in the next round.
    found = silos.sum(NAMES[1:], 2)
    np.testing.assert_allclose(found, 40 * UPDATE.numpy(), atol=1e-3)


def test_replayed_shares(silos: Silos) -> None:
    first = silos.deal(silos.group(NAMES, 1))
    old = first.delivery("a")
    silos.gather(first, NAMES)
    silos.agree(first)
    requests = first.unmasking()
    silos.unmask(first)
    for client, told in requests.items():
        with pytest.raises(FedproofError, match="has ended it: it reveals nothing"):
            silos.ask(client, "unmask", told)
    second = silos.deal(silos.group(NAMES, 2))
    mixed = ConfigRecord({**old, "root": second.server.session.root})
    with pytest.raises(FedproofError, match="were altered, or made for another session"):
        silos.mask(second, "a", exchange=mixed, model=OTHER)


def test_invented_clients_in_a_run_that_believes_the_server(tmp_path: Path) -> None:
    silos = Silos(tmp_path, "aggregation.adversary=semi_honest")
    ghosts = [FreshKeys.generate().advert(f"ghost{i}", Identity()) for i in range(2)]
    told = Purpose("train", 1, ("a", "ghost0", "ghost1"))
    group = Group(silos.protection, RUN, told, [silos.advert("a"), *ghosts])
    with pytest.raises(FedproofError, match="identity key of 'ghost0' is not in its roster"):
        silos.ask("a", "share", group.requests()["a"])


def test_a_client_that_is_invented_under_the_key_of_another(silos: Silos) -> None:
    twin = FreshKeys.generate().advert("b", silos.identities["c"])
    adverts = [silos.advert("a"), twin, silos.advert("c"), silos.advert("d")]
    group = Group(silos.protection, RUN, Purpose("train", 1, NAMES[:4]), adverts)
    with pytest.raises(FedproofError, match="identity key of 'b' is not in its roster"):
        silos.ask("a", "share", group.requests()["a"])


def test_a_roster_with_one_key_under_two_names(silos: Silos) -> None:
    text = silos.roster.read_text()
    silos.roster.write_text(text + f"{silos.identities['c'].public.hex()} f\n")
    with pytest.raises(FedproofError, match="line 6: another client has the same key"):
        silos.start(RUN)


def test_a_threshold_that_one_colluder_of_five_defeats(tmp_path: Path) -> None:
    with pytest.raises(FedproofError, match="holds off no server that cheats"):
        protection("aggregation.threshold=0.5")
    silos = Silos(tmp_path, "aggregation.threshold=0.56")
    with pytest.raises(FedproofError, match="lets 1 colluding clients of 5 open a vector"):
        silos.deal(silos.group(NAMES, 1))
    # Who has a roster does not believe a run that says that its server does not cheat.
    (tmp_path / "second").mkdir()
    silos = Silos(
        tmp_path / "second", "aggregation.threshold=0.5", "aggregation.adversary=semi_honest"
    )
    with pytest.raises(FedproofError, match="lets 1 colluding clients of 5 open a vector"):
        silos.deal(silos.group(NAMES, 1))


def test_a_threshold_that_the_server_lowers_for_some(silos: Silos) -> None:
    """Terms are each client's own: who is told others has other keys, and opens no share."""
    lowered = replace(silos.protection, terms=replace(silos.protection.terms, threshold=0.3))
    group = silos.group(NAMES, 1)
    lie = Group(lowered, RUN, Purpose("train", 1, NAMES), group.server.adverts)
    silos.deal(lie)
    with pytest.raises(FedproofError, match="takes part in no such secure sum"):
        silos.mask(lie, "a")


@pytest.mark.parametrize("alive", [(0, 1), (0, 1, 2)])
def test_a_cohort_that_dropouts_make_too_small(silos: Silos, alive: Sequence[int]) -> None:
    """Below ``min_cohort``, or below the threshold, nobody signs, so nobody reveals."""
    group = silos.deal(silos.group(NAMES, 1))
    silos.gather(group, NAMES)
    with pytest.raises(FedproofError, match="vectors arrived|sent a vector"):
        silos.agree(group, bits_of([i in alive for i in range(5)]))
    assert not group.unmasking()


def test_settings_that_change_within_a_run(tmp_path: Path) -> None:
    """Else rows might be named otherwise (``task.client``) for a second sum of a round."""
    Place(tmp_path, RUN, "one").bind()
    Place(tmp_path, RUN, "one").bind()
    Place(tmp_path, "8", "two").bind()
    with pytest.raises(FedproofError, match="changed the settings of a run that has begun"):
        Place(tmp_path, RUN, "two").bind()
