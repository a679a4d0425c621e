"""Clients that lie in secure sums: left out, or the sum is abandoned, and the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from server_app import checkpoint
from task.wire import Cohort
from tests.conftest import Ran, run_nodes
from tests.server_app.hostile.lies import UGLY, lied
from tests.server_app.secure.runs import SHORT

LIAR, NODE = "cleveland", 100
"""Comes first wherever clients are ordered: what it says is what others are compared with."""
SECAGG = (*SHORT, "rounds=2", "aggregation=secagg")
HE = (*SHORT, "rounds=2", "aggregation=he", "evaluate_every=2")
Lie = Callable[[RecordDict], object]


def once(kind: str, lie: Lie, key: str = "") -> Callable[[Message], Message]:
    """Return a fault: the client's first answer of a kind, which holds `key`, is changed."""
    done: list[bool] = []

    def change(part: RecordDict) -> None:
        if not done and (not key or key in part):
            done.append(True)
            lie(part)

    return lied(kind, change, LIAR, NODE)


def put(key: str, /, **values: Any) -> Lie:
    """Return a lie in one of an answer's ConfigRecords; None takes a value away."""

    def lie(part: RecordDict) -> None:
        told = {k: v for k, v in {**part[key], **values}.items() if v is not None}
        part[key] = ConfigRecord(told)

    return lie


def masked(array: Array, name: str = "masked") -> Lie:
    return lambda part: part.__setitem__("masked", ArrayRecord({name: array}))


def several(part: RecordDict) -> None:
    part["more"] = part["masked"]


WORDS = 273 + 3 * 3
LEFT_OUT: dict[str, Lie] = {
    "no layout": lambda part: part.pop("layout"),
    "no size": put("layout", size=None),
    "a size that is text": put("layout", size="many"),
    "another size": put("layout", size=7),
    "no update": put("layout", size=0),
    "10^18 values": put("layout", size=10**18),
    "-1 values": put("layout", size=-1),
    "10^9 figures": put("layout", lengths=[10**9, 1]),
    "fewer lengths": put("layout", lengths=[]),
    "other figures": put("layout", names=["loss", "more"]),
    "one name twice": put("layout", names=["loss", "loss"]),
    "a name of megabytes": put("layout", names=[UGLY, "num-examples"]),
    "no vector": lambda part: part.pop("masked"),
    "several vectors": several,
    "another name": masked(Array(np.zeros(WORDS, np.uint32)), "unmasked"),
    "numbers out of the field": masked(Array(np.full(WORDS, 2**40, np.uint64))),
    "fractions": masked(Array(np.full(WORDS, np.nan, np.float32))),
    "one number": masked(Array(np.zeros(1, np.uint32))),
    "a terabyte": masked(Array("uint32", (2**38,), "numpy.ndarray", b"\x93NUMPY\x01\x00v\x00")),
    "a pickle": masked(Array("O", (1,), "pickle", b"cos\nsystem\n.")),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_vector_that_is_none(name: str, federate: Callable[..., Any]) -> None:
    run = federate(*SECAGG, "evaluate_every=2", nodes=4, tamper=once("train", LEFT_OUT[name]))
    first, second = run.rounds
    assert list(first["failed"]) == [LIAR] and first["failed"][LIAR].isprintable()
    assert [line["secure"]["sums"] for line in (first, second)] == [[3], [4]]
    assert np.isfinite(run.summary["held_out"]["loss"])


def noise(part: RecordDict) -> None:
    """Send words of the right number and kind that hide nothing."""
    words = part["masked"]["masked"].numpy()
    drawn = np.random.default_rng(1).integers(0, 2**32, words.shape, np.uint32)
    part["masked"] = ArrayRecord({"masked": Array(drawn)})


def test_noise_under_masks_ends_a_sum_and_changes_no_model(federate: Callable[..., Any]) -> None:
    settings = (*SECAGG, "evaluate_every=1")
    run = federate(*settings, nodes=4, tamper=once("train", noise))
    first, second = run.rounds
    assert first["secure"]["sums"] == [] and second["secure"]["sums"] == [4]
    (why,) = first["secure"]["abandoned"]
    assert "somebody sent noise" in why
    start = federate(*settings, "train.lr=1e-30", nodes=4)
    untouched = start.rounds[0]["held_out"]["loss"]
    assert first["held_out"]["loss"] == pytest.approx(untouched, abs=1e-4)


def test_noise_in_an_evaluation(federate: Callable[..., Any]) -> None:
    settings = (*SECAGG, "evaluate_every=1")
    run = federate(*settings, nodes=4, tamper=once("evaluate", noise))
    first, second = run.rounds
    (why,) = first["evaluation_abandoned"]
    assert "somebody sent noise" in why and "held_out" not in first
    assert run.model == federate(*settings, nodes=4).model and "held_out" in second


def test_the_vector_of_another_round(federate: Callable[..., Any]) -> None:
    """Masks are of one round: an old vector is noise in the next."""
    kept: list[ArrayRecord] = []

    def replay(part: RecordDict) -> None:
        kept.append(part["masked"])  # type: ignore[arg-type]
        part["masked"] = kept[0]

    tamper = lied("train", replay, LIAR, NODE)
    run = federate(*SECAGG, "evaluate_every=3", nodes=4, tamper=tamper)
    first, second = run.rounds
    assert first["secure"]["sums"] == [4] and second["secure"]["sums"] == []
    assert "somebody sent noise" in second["secure"]["abandoned"][0]


STAGES: dict[str, tuple[str, Lie]] = {
    "no advert": ("advertise", put("advertise", advert=None)),
    "a short advert": ("advertise", put("advertise", advert=b"x")),
    "keys of low order": ("advertise", put("advertise", advert=bytes(160))),
    "an advert of a megabyte": ("advertise", put("advertise", advert=bytes(10**6))),
    "a refusal to be printed": ("advertise", put("advertise", refused=UGLY)),
    "shares for nobody": ("share", put("share", to=[], sealed=[])),
    "shares for strangers": ("share", put("share", to=[97, 98, 99], sealed=[b"", b"", b""])),
    "shares without an end": ("share", put("share", sealed=[b"x"] * 9)),
    "shares that are text": ("share", put("share", sealed=["x", "y", "z"])),
    "no commitment": ("share", put("share", commitment=7)),
    "no signature": ("agree", put("agree", signature=None)),
    "a signature of nothing": ("agree", put("agree", signature=bytes(64))),
    "a signature of a megabyte": ("agree", put("agree", signature=bytes(10**6))),
    "no shares back": ("unmask", put("unmask", of=[], shares=[])),
    "fewer shares back": ("unmask", put("unmask", shares=[b""])),
    "shares of strangers": ("unmask", put("unmask", of=[-1, 98, 99, 100])),
}  # fmt: skip


@pytest.mark.parametrize("name", STAGES)
def test_a_lie_at_any_stage(name: str, federate: Callable[..., Any]) -> None:
    stage, lie = STAGES[name]
    settings = (*SECAGG, "evaluate_every=3")
    run = federate(*settings, nodes=4, tamper=once("query.secure", lie, stage))
    sums = [line["secure"]["sums"] for line in run.rounds]
    assert sums[0] in ([3], [4], []) and sums[1] == [4]
    tensors, _ = checkpoint.load(run.directory / "model.safetensors")
    assert all(np.isfinite(value).all() for value in tensors.values())
    if stage in ("advertise", "share"):
        assert list(run.rounds[0]["failed"]) == [LIAR] and sums[0] == [3]
        assert run.rounds[0]["failed"][LIAR].isprintable()


def garbled(part: RecordDict) -> None:
    """Keep ciphertexts' length, and nothing of what they are."""
    told = {k: a.numpy() for k, a in part["encrypted"].items()}  # type: ignore[union-attr]
    for values in told.values():
        values[len(values) // 2 :] ^= 0x5A
    part["encrypted"] = ArrayRecord({k: Array(v) for k, v in told.items()})


ENCRYPTED: dict[str, Lie] = {
    "no ciphertexts": lambda part: part.pop("encrypted"),
    "garbage": lambda part: part.__setitem__(
        "encrypted",
        ArrayRecord({k: Array(np.zeros(99, np.uint8)) for k in ("update", "figures")}),
    ),
    "ciphertexts with holes": garbled,
    "one part": lambda part: part["encrypted"].__delitem__("update"),  # type: ignore[attr-defined]
    "fractions": lambda part: part.__setitem__(
        "encrypted", ArrayRecord({k: Array(np.zeros(9)) for k in ("update", "figures")})
    ),
    "no layout": lambda part: part.pop("layout"),
    "another size": put("layout", size=7),
    "10^11 values": put("layout", size=10**11),
    "10^11 figures": put("layout", lengths=[10**11, 1]),
}


@pytest.mark.parametrize("name", ENCRYPTED)
def test_ciphertexts_that_are_none(name: str, federate: Callable[..., Any]) -> None:
    pytest.importorskip("tenseal")
    run = federate(*HE, nodes=4, tamper=once("train", ENCRYPTED[name]))
    first, second = run.rounds
    assert list(first["failed"]) == [LIAR]
    assert [line["secure"]["sums"] for line in (first, second)] == [[3], [4]]


def lead(part: RecordDict) -> None:
    """Say of fewer clients than a key is sent to that it is for them."""
    put("seal", to=["va"])(part)


KEYS: dict[str, tuple[str, Lie]] = {
    "a key for others than it says": ("seal", lead),
    "a key of nothing": ("seal", put("seal", key=b"", sealed=[b"", b"", b""])),
    "reasons without clients": ("seal", put("seal", why=[UGLY])),
    "no offer": ("offer", put("offer", offer=None)),
    "an offer of a megabyte": ("offer", put("offer", offer=bytes(10**6))),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_key_that_is_none(name: str, federate: Callable[..., Any]) -> None:
    pytest.importorskip("tenseal")
    stage, lie = KEYS[name]
    run = federate(*HE, nodes=4, tamper=once("query.secure", lie, stage))
    assert [len(line["secure"]["sums"]) for line in run.rounds][-1] == 1
    assert all(reason.isprintable() for reason in run.rounds[0]["failed"].values())


def opened(**arrays: Any) -> Lie:
    def lie(part: RecordDict) -> None:
        told = {k: a.numpy() for k, a in part["opened"].items()}  # type: ignore[union-attr]
        told |= {key: change(told[key]) for key, change in arrays.items()}
        part["opened"] = ArrayRecord({k: Array(v) for k, v in told.items()})

    return lie


OPENED: dict[str, Lie] = {
    "another mean": opened(mean=lambda mean: mean + 1),
    "NaN": opened(mean=lambda mean: mean * np.nan),
    "a longer mean": opened(mean=lambda mean: np.zeros(10**6)),
    "a sum of 10^9 answers": put("decrypt", count=10**9),
    "a weight that is text": put("decrypt", weight="all"),
    "nothing": lambda part: part.pop("opened"),
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    pytest.importorskip("tenseal")
    return run_nodes(tmp_path_factory.mktemp("honest"), *HE, nodes=4)


@pytest.mark.parametrize("name", OPENED)
def test_a_client_alone_does_not_say_what_a_sum_holds(
    name: str, federate: Callable[..., Any], honest: Ran
) -> None:
    """Whoever of the cohort lies first: two must agree."""
    done: list[bool] = []

    def tamper(reply: Message) -> Message:
        cohort = Cohort.unpack(reply.content)
        for part in cohort.parts.values():
            if "decrypt" in part and not done:
                done.append(True)
                OPENED[name](part)
        reply.content = cohort.pack()
        return reply

    run = federate(*HE, nodes=4, tamper=tamper)
    assert done and run.rounds[1]["secure"]["sums"] == [4]
    lost = run.rounds[0]["secure"]["sums"] == []
    assert lost or run.rounds[0]["train"] == honest.rounds[0]["train"]
    if lost:
        assert "different values" in run.rounds[0]["secure"]["abandoned"][0]
