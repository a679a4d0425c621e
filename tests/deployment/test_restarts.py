"""Twenty rounds of DP-SGD cost what they cost together, also when everything restarts between."""

import os

import pytest

from benchmarks.data import hospitals
from server_app.evidence import files
from task.privacy.accounting import Spend, epsilon
from task.privacy.ledger import Ledger
from task.privacy.row_counts import released_counts
from tests.flower import deployment, fedproof

# One round alone would show ε 1.79, an engine made anew each round shows that twenty times.
SIGMA, BATCH, STEPS = 1.0, 3, 345
DP = (
    "privacy=record_dp", f"privacy.sigma={SIGMA}", f"train.steps={STEPS}", "model=logistic",
    f"train.batch_size={BATCH}", "task.scaling=local", "evaluate_every=10", "checkpoint_every=5",
)  # fmt: skip
ROWS = 199
"""Of Cleveland's hospital."""
HALF_ON_SUPERNODES = int(os.environ.get("FEDPROOF_HALF", "1"))
"""Rounds before and after the restart: ten take eight minutes there, where each costs some 20 s."""


def costs(rounds, rows=ROWS):
    return epsilon([Spend(SIGMA, BATCH / rows, STEPS * rounds)], 1e-5)


def test_the_setting_is_the_one_that_an_engine_per_round_gets_wrong():
    assert costs(1) == pytest.approx(1.79, abs=0.06)
    assert costs(20) == pytest.approx(8.11, abs=0.03)


def test_in_simulation(federate):
    silo = ("federation.clients=1",)
    parted = federate(*DP, *silo, "rounds=10")
    ran = federate(
        *DP, *silo, "rounds=20", f"resume={parted.directory}", directory=parted.directory
    )
    told = [line["privacy"]["epsilon"]["cleveland"] for line in ran.rounds]
    assert told == pytest.approx([costs(number) for number in range(1, 21)], abs=1e-3)
    assert ran.summary["privacy"]["ledger_epsilon"]["cleveland"] == pytest.approx(told[-1])


@pytest.mark.slow
def test_on_a_supernode(tmp_path):
    silo = hospitals.main(tmp_path / "data")[0]
    ledgers, directory = tmp_path / "ledgers", tmp_path / "run"
    config = f'data="{silo}" ledger="{ledgers}" privacy="record_dp" max-epsilon=9.0'
    told = ("federation=remote", "federation.superlink=silos", "federation.nodes=1", *DP)
    half = HALF_ON_SUPERNODES
    parts = ([*told, f"rounds={half}"], [f"resume={directory}", f"rounds={2 * half}"])
    for part, more in enumerate(parts):
        # SuperLink, SuperNode and ServerApp all start anew.
        with deployment(tmp_path / f"flower-{part}", [config]) as environment:
            done = fedproof(*more, f"hydra.run.dir={directory}", environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        summary = files.read_json(directory / files.SUMMARY)
        (path,) = ledgers.glob("*.jsonl")
        counts, *rounds = Ledger(path).entries()
        rows = released_counts([counts]).train
        assert len(rounds) == half * (part + 1)
        assert summary["privacy"]["epsilon_most"] == pytest.approx(
            costs(half * (part + 1), rows), abs=1e-3
        )
    spent = [entry.spend for entry in rounds]
    assert epsilon(spent, 1e-5) == pytest.approx(costs(2 * half, rows), abs=1e-3)
