"""What a node's clients refuse, whatever a server sends them."""

from __future__ import annotations

import stat

import pytest
from flwr.app import ConfigRecord, Context, RecordDict

from benchmarks.data import hospitals
from client_app.app import app as client_app
from conf.errors import FedproofError
from server_app.compat import stamp
from task.identity import Identity
from task.refusals import Refusal
from task.secagg.session import bits_of
from task.wire import Cohort
from tests.conftest import NodesGrid

SETTINGS = ("rounds=1", "model.hidden=[8]", "train.steps=2", "aggregation=secagg")


@pytest.fixture
def ran(federate):
    return federate(*SETTINGS)


def again(ran, message):
    """Send a message of a finished run a second time."""
    context: Context = ran.grid._contexts[message.metadata.dst_node_id]
    return Cohort.unpack(client_app(stamp(message), context).content)


def sent(ran, kind, request=None):
    found = [m for m in ran.grid.sent if m.metadata.message_type == kind]
    if request:
        parts = (Cohort.unpack(m.content).parts for m in found)
        found = [
            m for m, p in zip(found, parts, strict=True) if any(request in t for t in p.values())
        ]
    return found[0]


def refusals(cohort, request):
    return [str(part[request]["refused"]) for part in cohort.parts.values()]


def test_a_second_vector_is_refused(ran):
    """Two vectors under the same masks would show their difference."""
    for kind in ("train", "evaluate"):
        errors = again(ran, sent(ran, kind)).errors
        assert len(errors) == 4
        for client, sentence in errors.items():
            assert f"'{client}'" in sentence and "reveals nothing" in sentence


def test_another_name_of_the_run_makes_no_other_run(ran):
    """The server names runs as it likes (``lineage``); clients go by Flower's id of the run."""
    for kind, request in (("train", ""), ("query.secure", "share")):
        message = sent(ran, kind, request)
        cohort = Cohort.unpack(message.content)
        header = {**cohort.header, "lineage": [["another", 0]]}
        message.content = Cohort(cohort.parts, header=header).pack()
        answer = again(ran, message)
        told = refusals(answer, request) if request else list(answer.errors.values())
        assert len(told) == 4
        for sentence in told:
            assert "reveals nothing" in sentence or "deals no shares twice" in sentence


def test_shares_are_revealed_once(ran):
    for sentence in refusals(again(ran, sent(ran, "query.secure", "unmask")), "unmask"):
        assert "has ended it: it reveals nothing" in sentence


def test_shares_are_dealt_once(ran):
    for sentence in refusals(again(ran, sent(ran, "query.secure", "share")), "share"):
        assert "it deals no shares twice" in sentence


def test_nothing_is_signed_twice(ran):
    for sentence in refusals(again(ran, sent(ran, "query.secure", "agree")), "agree"):
        assert "it reveals nothing" in sentence


def tampering(change):
    """Return a server's lie: what it sends to clients is changed by `change(request, client)`."""

    class Lying(NodesGrid):
        def send_and_receive(self, messages, *, timeout=None):
            changed = []
            for message in messages:
                cohort = Cohort.unpack(message.content)
                for client, part in cohort.parts.items():
                    for key in set(part) & {"agree", "share", "unmask", "cohort", "secure"}:
                        part[key] = ConfigRecord(dict(part[key]))
                        change(key, client, part[key])
                message.content = cohort.pack()
                changed.append(message)
            return super().send_and_receive(changed, timeout=timeout)

    return Lying


def lied(federate, monkeypatch, change):
    """Return why the first round was abandoned, and what each client said."""
    monkeypatch.setattr("tests.conftest.NodesGrid", tampering(change))
    with pytest.raises(FedproofError) as ended:
        federate(*SETTINGS)
    assert "\n" not in str(ended.value)
    return str(ended.value)


def test_a_victim_that_is_called_alive_here_and_gone_there_stays_masked(federate, monkeypatch):
    def change(key, client, told):
        if key == "agree" and client in ("cleveland", "hungary"):
            told["alive"] = bits_of([True, True, True, False])

    assert "shares of the mask of" in lied(federate, monkeypatch, change)


def test_too_small_a_set_is_not_signed(federate, monkeypatch):
    def change(key, client, told):
        if key == "agree":
            told["alive"] = bits_of([True, True, False, False])

    assert "stays masked" in lied(federate, monkeypatch, change)


def test_forged_signatures_do_not_unmask(federate, monkeypatch):
    server = Identity()

    def change(key, client, told):
        if key == "unmask":
            told["signatures"] = [server.sign("x")] * len(told["signatures"])

    assert "stays masked" in lied(federate, monkeypatch, change)


def test_a_cohort_of_one_is_refused(federate, monkeypatch):
    def change(key, client, told):
        if key == "cohort":
            told["digests"] = bytes(told["digests"])[:32]

    assert "1 clients were asked, aggregation.min_cohort is 3" in lied(
        federate, monkeypatch, change
    )


def test_keys_of_the_server_s_own_are_refused(federate, monkeypatch):
    """It may sign them itself, but the roster says whose identity is whose."""
    from task.secagg.session import Advert, FreshKeys

    def change(key, client, told):
        if key == "share" and client == "va":
            forged = FreshKeys.generate().advert(told["clients"][0], Identity())
            told["adverts"] = [forged.pack(), *told["adverts"][1:]]
            assert Advert.unpack(told["clients"][0], forged.pack()) == forged

    monkeypatch.setattr("tests.conftest.NodesGrid", tampering(change))
    run = federate(*SETTINGS)
    # The others go on without the one that the server tried to deceive.
    assert run.rounds[0]["secure"]["sums"] == [3]
    assert "not those of the cohort" in run.rounds[0]["failed"]["va"]


def test_altered_shares_are_refused(federate, monkeypatch):
    def change(key, client, told):
        if key == "secure" and client == "va":
            first = bytearray(told["sealed"][0])
            first[20] ^= 1
            told["sealed"] = [bytes(first), *told["sealed"][1:]]

    monkeypatch.setattr("tests.conftest.NodesGrid", tampering(change))
    run = federate(*SETTINGS)
    assert "were altered, or made for another session" in run.rounds[0]["failed"]["va"]
    assert run.rounds[0]["secure"]["sums"] == [3]


def test_another_round_or_purpose_does_not_fit(federate, monkeypatch):
    """Who was told another round has other keys: nobody opens its shares, nobody sends a vector."""

    def change(key, client, told):
        if key == "cohort" and client == "va" and told["purpose"] == "train":
            told["number"] = 7

    why = lied(federate, monkeypatch, change)
    assert "the shares of 'va' were altered, or made for another session" in why
    assert "0 of 4 clients sent a vector" in why


def test_secrets_are_the_owner_s_and_gone_afterwards(ran):
    files = [p for p in (ran.directory / "clients" / "secrets").rglob("*") if p.is_file()]
    files = [p for p in files if p.name != "settings" and p.parent.name != "revealed"]
    assert len(files) == 8
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        text = path.read_text()
        assert not text or '"members": {}' in text


def test_damaged_secrets_end_in_one_sentence(federate, tmp_path):
    directory = tmp_path / "run"
    ran = federate(*SETTINGS, directory=directory)
    for path in (directory / "clients" / "secrets").rglob("*"):
        if path.is_file() and path.suffix != ".lock":
            path.write_text("{")
    errors = again(ran, sent(ran, "query.secure", "unmask")).parts
    for client, part in errors.items():
        assert f"the secrets of client '{client}'" in part["unmask"]["refused"]


@pytest.fixture
def silos(tmp_path):
    """Return a function that gives each hospital's node config."""
    paths = hospitals.main(tmp_path / "data")
    names = [path.name.split(".")[1] for path in paths]
    keys = {name: Identity() for name in names}

    def configs(unknown: str = "", roster: bool = True):
        lines = [f"{keys[n].public.hex()} {n}" for n in names if n != unknown]
        (tmp_path / "roster").write_text("# silos\n\n" + "\n".join(lines) + "\n")
        for name, key in keys.items():
            if not (tmp_path / f"{name}.key").exists():
                key.write(tmp_path / f"{name}.key")
        pinned = {"roster": str(tmp_path / "roster")} if roster else {}
        return [
            {
                "data": str(path), "identity": str(tmp_path / f"{name}.key"),
                "state": str(tmp_path / name), "held-out": "seed", **pinned,
            }
            for path, name in zip(paths, names, strict=True)
        ]  # fmt: skip

    return configs


def test_silos_deal_with_those_they_know(federate, silos):
    run = federate(*SETTINGS, nodes=silos())
    assert run.rounds[0]["secure"]["sums"] == [4]
    assert run.model == federate(*SETTINGS).model


def test_a_stranger_is_refused_by_name_in_the_silos_log(federate, silos, caplog):
    with pytest.raises(FedproofError, match=Refusal.secure):
        federate(*SETTINGS, nodes=silos(unknown="va"))
    assert "the identity key of 'va' is not in its roster" in caplog.text


def test_without_a_roster_a_silo_takes_the_server_s_word_only_if_its_operator_says_so(
    federate, silos
):
    nodes, run_says = silos(roster=False), "aggregation.adversary=semi_honest"
    with pytest.raises(FedproofError):
        federate(*SETTINGS, nodes=nodes)
    with pytest.raises(FedproofError):
        federate(*SETTINGS, run_says, nodes=nodes)
    run = federate(*SETTINGS, run_says, nodes=[node | {"adversary": "any"} for node in nodes])
    assert run.summary["secure"]["adversary"] == "semi_honest"


@pytest.mark.parametrize(
    ("policy", "overrides", "sentence"),
    [
        ({"aggregation": "secagg"}, ("aggregation=none",), "demands aggregation=secagg"),
        ({"min-cohort": 5}, (), "demands min-cohort=5 at least"),
        ({"threshold": 0.7}, (), "demands threshold=0.7 at least"),
        ({"min-cohort": "many"}, (), "min-cohort=many must be positive"),
    ],
)
def test_a_policy_goes_before_the_run(federate, policy, overrides, sentence):
    with pytest.raises(FedproofError, match=sentence):
        federate(*SETTINGS, *overrides, nodes=[policy])


def test_a_run_without_secure_sums_has_nothing_to_unmask(federate):
    run = federate(*SETTINGS, "aggregation=none")
    message = sent(run, "train")
    cohort = Cohort.unpack(message.content)
    part = RecordDict({"unmask": ConfigRecord({"root": b"", "signers": [], "signatures": []})})
    message.content = Cohort({"va": part}, header=cohort.header).pack()
    message.metadata.message_type = "query.secure"
    assert "nothing to be unmasked" in again(run, message).header["refused"]
