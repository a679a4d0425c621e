"""What clients refuse: keys of strangers, a second answer, a second sum, a sum of too few."""

from __future__ import annotations

import base64

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict

from client_app.secure.box import Place, opened
from client_app.secure.he import HEClients
from client_app.secure.revealed import Question
from client_app.secure.trust import Trust
from conf.compose import compose
from conf.errors import FedproofError
from server_app.secure.keys import KeyDelivery
from task.arrays import array_of, record_of, values_of
from task.he.answers import AnswerSum
from task.he.keyring import KeyRing
from task.identity import Identity
from task.layouts import Layout
from task.refusals import Refusal
from task.secure import protection_of
from task.secure.kinds import Kind

pytest.importorskip("tenseal")

NAMES = ("a", "b", "c", "d")


def protection(*overrides: str):
    small = ("aggregation.degree=4096", "aggregation.bits=28")
    return protection_of(compose(("task=healthcare", "aggregation=he", *small, *overrides)))


def silo(folder, name: str, identity: Identity, roster: dict[str, Identity], *overrides: str):
    """Return a node of its own, with one client."""
    folder = folder / name
    folder.mkdir()
    identity.write(folder / "key")
    lines = [f"{known.public.hex()} {client}" for client, known in roster.items()]
    (folder / "roster").write_text("\n".join(lines))
    known = folder / "roster" if roster else None
    trust = Trust(folder, folder / "key", known, simulated=False)
    return HEClients(protection(*overrides), trust, Place(folder / "secrets", "1", "settings"))


class Silos:
    """Four silos, and a server in the middle."""

    def __init__(
        self, folder, *overrides: str, strangers: tuple[str, ...] = (), roster: bool = True
    ) -> None:
        self.identities = {name: Identity() for name in NAMES}
        pinned = {n: Identity() if n in strangers else i for n, i in self.identities.items()}
        pinned = pinned if roster else {}
        self.silos = {
            name: silo(folder, name, identity, pinned, *overrides)
            for name, identity in self.identities.items()
        }
        self.asked: list[tuple[str, str]] = []
        self.gone: set[str] = set()
        self.keys = KeyDelivery(self.ask)

    def ask(self, told):
        self.asked += [(client, name) for client, content in told.items() for name in content]
        return {
            client: "its node left" if client in self.gone else self.silos[client].answer(client, c)
            for client, c in told.items()
        }

    def encrypt(
        self, client: str, number: int = 1, kind: Kind = Kind.TRAIN, **changes
    ) -> RecordDict:
        told = ConfigRecord({**self.keys.told(client), **changes})
        question = Question(kind, number, b"model", told)
        update = torch.full((50,), 0.5)
        answer, _ = self.silos[client].hidden(
            client, question, update, 10, {"num-examples": [10.0]}
        )
        return answer

    def sum(self, clients=NAMES, number: int = 1) -> AnswerSum:
        total = AnswerSum(protection().terms)
        for client in clients:
            answer = self.encrypt(client, number)
            parts = {name: values_of(array) for name, array in answer["encrypted"].items()}
            total.add(client, Layout.unpack(answer["layout"]), parts)
            self.keys.arrived(client)
        return total

    def open(self, client: str, total: AnswerSum, number: int = 1, purpose: str = "train"):
        told = ConfigRecord({"purpose": purpose, "number": number, **total.layout.pack()})
        sums = record_of({name: array_of(part) for name, part in total.totals().items()})
        answer = self.silos[client].answer(client, RecordDict({"decrypt": told, "sums": sums}))
        return answer["decrypt"].get("refused"), answer.get("opened")


@pytest.fixture
def silos(tmp_path):
    return Silos(tmp_path)


def one_sentence(text: str) -> str:
    assert text.endswith(".") and ". " not in text
    return text


def test_the_key_reaches_all_in_two_exchanges_and_stays(silos):
    assert silos.keys.prepare(NAMES) == {}
    assert silos.asked == [*((name, "offer") for name in NAMES), ("a", "seal")]
    refused, found = silos.open("c", silos.sum())
    assert refused is None
    assert values_of(found["mean"]) == pytest.approx(0.5, abs=1e-5)
    assert values_of(found["figures"]).tolist() == [40.0]
    # Another server process, which knows nothing, asks again, and nothing is sent anew.
    silos.asked.clear()
    silos.keys = KeyDelivery(silos.ask)
    assert silos.keys.prepare(NAMES) == {}
    assert silos.asked == [(name, "offer") for name in NAMES]
    assert "sealed" not in silos.keys.told("b")


def test_who_joins_later_gets_the_key_of_the_others(silos):
    silos.keys.prepare(NAMES[:3])
    silos.sum(NAMES[:3])
    silos.gone = {"a"}
    silos.asked.clear()
    assert silos.keys.prepare(NAMES) == {}
    assert silos.asked == [("d", "offer"), ("a", "seal"), ("b", "seal")]
    total = silos.sum(("b", "c", "d"), number=2)
    assert silos.open("d", total, number=2)[0] is None


def test_a_new_key_is_made_where_nobody_has_it_any_more(silos):
    silos.keys.prepare(NAMES)
    for client in NAMES:
        silos.keys.lost(client)
    silos.gone = {"a"}
    failed = silos.keys.prepare(NAMES)
    assert failed == {"a": "its node left"}
    assert silos.open("c", silos.sum(("b", "c", "d")))[0] is None
    silos.gone = set()
    silos.keys.prepare(NAMES)
    silos.sum(NAMES, number=2)


def test_a_leader_that_is_refused_leaves_no_key_behind(silos):
    ask = silos.ask

    def lie(told):
        answers = ask(told)
        if "seal" in told.get("a", ()):
            answers["a"]["seal"]["why"] = ["for nobody"]
        return answers

    silos.keys = KeyDelivery(lie)
    assert silos.keys.prepare(NAMES) == {}
    assert silos.asked[-2:] == [("a", "seal"), ("b", "seal")]
    # The second leader has its own key, not the one that the first sent it.
    assert "sealed" not in silos.keys.told("b")
    assert silos.open("d", silos.sum(("b", "c", "d", "a")))[0] is None


def test_after_a_doubt_those_with_another_key_get_that_of_the_others(silos, tmp_path):
    silos.keys.prepare(NAMES)
    silos.sum()
    with opened(tmp_path / "b" / "secrets", "1", "b") as secrets:
        ring = KeyRing.create(protection().terms.parameters)
        secrets["ring"] = base64.b64encode(ring.data).decode()
    with pytest.raises(FedproofError, match="another key"):
        silos.sum(("b", "c"), number=2)
    silos.keys.doubt()
    assert silos.keys.prepare(NAMES) == {}
    assert silos.open("d", silos.sum(("b", "c", "d", "a"), number=3), number=3)[0] is None


@pytest.mark.parametrize("stranger", NAMES[:2])
def test_who_is_not_the_one_in_the_roster_gets_no_key_and_leads_nobody(stranger, tmp_path, caplog):
    silos = Silos(tmp_path, strangers=(stranger,))
    failed = silos.keys.prepare(NAMES)
    if stranger == "b":
        assert str(Refusal.secure) in one_sentence(failed["b"])
        assert "'b' is not signed by its identity key" in caplog.text
        assert not silos.keys.reaches("b")
        return
    # It led, as the first by name; nobody takes its key.
    for client in NAMES[1:]:
        with pytest.raises(FedproofError, match="is not what the leader 'a' sent") as error:
            silos.encrypt(client)
        one_sentence(str(error.value))
    told = silos.keys.told("b")
    silos.ask({"b": RecordDict({"offer": ConfigRecord()})})
    with pytest.raises(FedproofError, match="'eve' is not in this node's roster"):
        silos.encrypt("b", leader="eve", sealed=told["sealed"], identity=told["identity"])


def test_unverified_identities_are_taken_as_they_come_where_there_is_no_roster(tmp_path):
    silos = Silos(tmp_path, "aggregation.identities=unverified", roster=False)
    assert silos.keys.prepare(NAMES) == {}
    assert silos.open("b", silos.sum())[0] is None


def test_a_run_does_not_switch_a_roster_off(tmp_path, caplog):
    """Else the key would go to whatever key the server offers in a client's name."""
    silos = Silos(tmp_path, "aggregation.identities=unverified", strangers=("b",))
    failed = silos.keys.prepare(NAMES)
    assert str(Refusal.secure) in one_sentence(failed["b"])
    assert "'b' is not signed by its identity key" in caplog.text
    assert not silos.keys.reaches("b")


def test_without_a_roster_a_node_takes_no_part(tmp_path):
    trust = Trust(tmp_path, None, None, simulated=False)
    with pytest.raises(FedproofError, match=r"identities=pinned needs a roster .* or choose unver"):
        HEClients(protection(), trust, Place(tmp_path, "1", ""))
    HEClients(protection("aggregation.identities=unverified"), trust, Place(tmp_path, "1", ""))


def test_a_key_is_taken_once_and_only_where_it_was_asked_for(silos):
    silos.keys.prepare(NAMES)
    told = silos.keys.told("b")
    silos.encrypt("b")
    silos.keys.arrived("b")
    with pytest.raises(FedproofError, match="has not asked for"):
        silos.encrypt("b", 2, **{k: told[k] for k in ("sealed", "leader", "identity")})


def test_nothing_is_encrypted_without_a_key_nor_twice_for_a_round(silos):
    with pytest.raises(FedproofError, match="'a' was not sent this run's encryption key"):
        silos.encrypt("a")
    silos.keys.prepare(NAMES)
    silos.encrypt("b", 2)
    silos.keys.arrived("b")
    for number in (1, 2):
        with pytest.raises(
            FedproofError, match=rf"encrypted an answer for round {number}"
        ) as error:
            silos.encrypt("b", number)
        one_sentence(str(error.value))
    silos.encrypt("b", 2, Kind.EVALUATE)


def test_a_client_opens_one_sum_of_a_round(silos, caplog):
    silos.keys.prepare(NAMES)
    total = silos.sum()
    assert silos.open("b", total)[0] is None
    refused, found = silos.open("b", total)
    assert found is None
    assert refused == Refusal.secure
    assert "opened a sum of round 1 (train) or a later one before" in caplog.text
    assert silos.open("c", total)[0] is None


@pytest.mark.parametrize("lie", [{"number": 2}, {"purpose": "evaluate"}, {"purpose": "train "}])
def test_a_client_opens_no_sum_but_of_its_own_last_answer(silos, lie, caplog):
    silos.keys.prepare(NAMES)
    refused, found = silos.open("d", silos.sum(), **lie)
    assert found is None and refused == Refusal.secure
    assert "encrypted no such answer" in caplog.text or "neither" in caplog.text


def test_sums_of_too_few_or_of_another_key_or_altered_are_not_opened(silos, tmp_path, caplog):
    silos.keys.prepare(NAMES)
    two = silos.sum(NAMES[:2])
    refused, found = silos.open("a", two)
    assert found is None
    assert refused == Refusal.secure
    assert "that of 2 client(s), but fewer than 3 are not shown" in caplog.text
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    strangers = Silos(elsewhere)
    strangers.keys.prepare(NAMES)
    refused, found = silos.open("b", strangers.sum())
    assert found is None and refused == Refusal.secure
    assert "made with another key" in caplog.text
    empty = RecordDict({"decrypt": ConfigRecord({"purpose": "train", "number": 9})})
    assert silos.silos["b"].answer("b", empty)["decrypt"]["refused"] == Refusal.message
    assert "cannot read the 'decrypt' request" in caplog.text
