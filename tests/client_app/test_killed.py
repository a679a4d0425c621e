"""Processes that are killed around a release: what was, or may have been, released is counted."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server_app.privacy.curator import LEDGER
from task.privacy.accounting import Spend, epsilon
from task.privacy.ledger import Ledger
from tests.flower import ROOT

FEDERATION = (
    "task=synthetic", "model=logistic", "task.shape=[6]", "task.classes=3", "task.clients=3",
    "task.rows=40", "train.batch_size=8", "rounds=3", "federation.fraction=1.0",
)  # fmt: skip
RECORD = (*FEDERATION, "privacy=record_dp", "privacy.sigma=1.0")
CLIENT = (*FEDERATION, "privacy=client_dp", "privacy.sigma=1.0", "federation.fraction=0.9")

RUN = """
import os, signal, sys
from pathlib import Path
from task.privacy.ledger import Ledger
from tests.conftest import run_nodes

name, moment, after, directory, *overrides = sys.argv[1:]
left = int(after)

def tick():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

spend = Ledger.spend

def watched(self, entry, allows):
    mine = (self.path.name == "population.jsonl") == (name == "server")
    if moment == "before" and mine:
        tick()
    spend(self, entry, allows)
    if moment == "written" and mine:
        tick()

def sent(reply):
    if moment == "sent" and reply.metadata.message_type == "train":
        tick()
    return reply

Ledger.spend = watched
run_nodes(Path(directory), *overrides, tamper=sent)
"""


def run(name, moment, after, directory, overrides):
    command = [sys.executable, "-c", RUN, name, moment, str(after), str(directory), *overrides]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


def entries(directory: Path) -> list[int]:
    return sorted(len(Ledger(path).entries()) for path in (directory / "ledgers").glob("*.jsonl"))


# The fifth spend is the second client's in round 2; the second answer to training is of round 2.
@pytest.mark.parametrize(
    ("moment", "after", "written", "resumed"),
    [
        ("before", 5, [1, 1, 2], [3, 3, 4]),
        ("written", 5, [1, 2, 2], [3, 4, 4]),
        ("sent", 2, [2, 2, 2], [4, 4, 4]),
    ],
)
def test_a_killed_client_counts_what_may_have_left(
    moment, after, written, resumed, tmp_path, federate
):
    directory = tmp_path / "run"
    died = run("client", moment, after, directory, RECORD)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert entries(directory) == written
    again = federate(*RECORD, f"resume={directory}", directory=directory)
    assert entries(directory) == resumed
    # The model holds three rounds; the ledgers count one more, where one may have got out.
    told = again.summary["privacy"]
    each = Spend(1.0, 8 / 40, 5)
    assert told["epsilon_most"] == pytest.approx(epsilon([each] * 3, 1e-5), abs=1e-3)
    ledgers = sorted(told["ledger_epsilon"].values())
    assert ledgers == pytest.approx([epsilon([each] * n, 1e-5) for n in resumed], abs=1e-3)


@pytest.mark.parametrize(("moment", "counted"), [("before", 3), ("written", 4)])
def test_a_killed_server_counts_the_round_it_was_in(moment, counted, tmp_path, federate):
    directory = tmp_path / "run"
    died = run("server", moment, 2, directory, CLIENT)
    assert died.returncode == -signal.SIGKILL, died.stderr
    again = federate(*CLIENT, f"resume={directory}", directory=directory)
    assert len(Ledger(directory / LEDGER).entries()) == counted
    cost = epsilon([Spend(1.0, 0.9, counted)], 1e-5)
    assert again.summary["privacy"]["epsilon_most"] == pytest.approx(cost, abs=1e-3)
