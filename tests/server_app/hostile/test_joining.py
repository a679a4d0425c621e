"""Who lies when it joins does not take part; nobody else notices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import ConfigRecord, RecordDict

from conf.errors import FedproofError
from task.wire import Cohort
from tests.conftest import Ran, run_nodes
from tests.server_app.hostile.lies import LIAR, SHORT, UGLY, edited, silent, with_header


@pytest.fixture(scope="module")
def absent(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run that the liar's node never joined."""
    return run_nodes(tmp_path_factory.mktemp("absent"), *SHORT, nodes=4, tamper=silent("query"))


class Packed:
    """Content that is a cohort's already."""

    def __init__(self, content: RecordDict) -> None:
        self._content = content

    def pack(self) -> RecordDict:
        return self._content


def content(**texts: str) -> Callable[[Cohort], Any]:
    told = {"layout": "{}", "errors": "{}", "header": "{}"} | texts
    return lambda _: Packed(RecordDict({"cohort": ConfigRecord(told)}))


JOINS: dict[str, tuple[Callable[[Cohort], Any], str]] = {
    "no name": (with_header(clients=[""]), "cannot be shown"),
    "a name of megabytes": (with_header(clients=[UGLY]), "cannot be shown"),
    "a name that a terminal obeys": (with_header(clients=["va\x1b[2J"]), "cannot be shown"),
    "a name that turns text": (with_header(clients=["va\u202e"]), "cannot be shown"),
    "half a character": (with_header(clients=["va\ud800"]), "cannot be shown"),
    "owed rows": (with_header(train=[-1]), "does not list its clients"),
    "NaN rows": (with_header(train=[float("nan")]), "does not list its clients"),
    "true rows": (with_header(train=[True]), "does not list its clients"),
    "10^18 rows": (with_header(train=[10**18]), "claims 1000000000000000000 rows"),
    "10^18 held-out rows": (with_header(test=[10**18]), "claims 1000000000000000000 rows"),
    "10^4000 rows": (with_header(train=[10**4000]), "claims 1000"),
    "fewer counts": (with_header(train=[]), "does not list its clients"),
    "no list": (with_header(clients=7), "does not list its clients"),
    "text": (with_header(describes="x"), "does not list its clients"),
    "NaN in what it tells of its rows": (
        with_header(describes={LIAR: {"sum": [float("nan")]}}), "what is no number"
    ),
    "a refusal of megabytes": (with_header(refused=UGLY), "script"),
    "other code": (with_header(code="f" * 64), "other code"),
    "JSON 100,000 deep": (content(header="[" * 100_000), "not a cohort message"),
    "a number of 10,000 digits": (content(header="9" * 10_000), "not a cohort message"),
    "nothing": (lambda _: Packed(RecordDict()), "not a cohort message"),
}  # fmt: skip


@pytest.mark.parametrize("name", JOINS)
def test_it_takes_no_part(name: str, federate: Callable[..., Ran], absent: Ran) -> None:
    edit, reason = JOINS[name]
    ran = federate(*SHORT, nodes=4, tamper=edited("query", edit))
    (told,) = ran.run_facts["refused"]
    assert reason in told and told.isprintable() and len(told) < 500
    assert ran.rounds[0]["answered"] == ["cleveland", "hungary", "switzerland"]
    assert ran.model == absent.model


TOLD = {
    "no numbers": {"count": "many", "mean": [], "remainder": None, "deviations": {}},
    "nothing": {},
    "ragged": {"count": [1, [2]], "mean": [1], "remainder": [0], "deviations": [1]},
}


@pytest.mark.parametrize("name", TOLD)
def test_rows_that_cannot_be_what_it_tells(name: str, federate: Callable[..., Ran]) -> None:
    edit = with_header(describes={LIAR: TOLD[name]})
    settings = (*SHORT, "task.scaling=federated")
    ran = federate(*settings, nodes=4, tamper=edited("query", edit))
    assert ran.run_facts["refused"] == ["what client 'va' tells of its rows cannot be read"]
    assert ran.rounds[0]["answered"] == ["cleveland", "hungary", "switzerland"]
    assert ran.model == federate(*settings, nodes=4, tamper=silent("query")).model


def test_tables_that_do_not_go_together_end_in_a_sentence(federate: Callable[..., Ran]) -> None:
    names = ("count", "mean", "remainder", "deviations")
    short = {name: [1.0, 1.0] for name in names}
    with pytest.raises(FedproofError, match="does not go together"):
        federate(
            *SHORT, "task.scaling=federated", nodes=4,
            tamper=edited("query", with_header(describes={LIAR: short})),
        )  # fmt: skip


def test_nobody_can_tell_whose_a_client_is_that_two_nodes_claim(
    federate: Callable[..., Ran],
) -> None:
    claim = with_header(clients=["hungary"])
    with pytest.raises(FedproofError, match="'hungary' is served by two nodes, 101 and 103"):
        federate(*SHORT, nodes=4, tamper=edited("query", claim))
