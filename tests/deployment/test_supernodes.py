"""Four SuperNodes train what a simulation trains: plainly, in secure sums, and asynchronously."""

import os
import time
from pathlib import Path

import pytest

from benchmarks.soak import answering
from server_app.evidence import files
from tests.flower import assert_same_run, fedproof, wait_for
from tests.outage import NODES, rounds_of

pytestmark = pytest.mark.slow
ROUNDS = 2
# Each message takes a while where two cores serve all: few messages.
SETTINGS = (f"rounds={ROUNDS}", f"evaluate_every={ROUNDS}")
COMPARED = ("compare=true", "seeds=2")
SECURE_ROUNDS = int(os.environ.get("FEDPROOF_SECURE_ROUNDS", "1"))
"""One takes eight exchanges of some 20 s each where two cores serve all."""
SLOW = "cleveland"
FLUSHES = 30


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two seeds by engine local, each with its baselines."""
    directory = tmp_path_factory.mktemp("local")
    told = (*SETTINGS, *COMPARED, "federation.workers=1")
    done = fedproof(*told, f"hydra.run.dir={directory}")
    assert done.returncode == 0, done.stderr
    return directory


def on_supernodes(directory: Path, environment: dict[str, str], *told: str) -> str:
    done = fedproof(*NODES, *told, f"hydra.run.dir={directory}", environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_four_supernodes_with_their_own_files(tmp_path, compared, hospitals):
    """They train the same model, and alone the same models, under each seed."""
    shown = on_supernodes(tmp_path, hospitals.environment, *SETTINGS, *COMPARED)
    assert "4 clients" in shown and f"round {ROUNDS}/{ROUNDS}" in shown
    assert "rows stay there, so no model trains on everybody's" in shown
    for seed in ("seed-42", "seed-43"):
        assert_same_run(tmp_path / seed, compared / seed)
        assert len(files.read_lines(tmp_path / seed / files.METRICS)) == ROUNDS
        mine, theirs = (files.read_json(d / seed / files.BASELINES) for d in (tmp_path, compared))
        assert "likeness" in theirs and "likeness" not in mine
        for client in theirs["clients"].values():
            assert client.pop("central")
        assert mine["clients"] == theirs["clients"] and not mine["failed"]
    verdict, expected = (files.read_json(d / files.COMPARISON) for d in (tmp_path, compared))
    for key in ("decision", "gain", "seeds", "alignment"):
        assert verdict[key] == expected[key], key
    assert verdict["central_over_federated"] is None and not verdict["centralise"]
    page = (tmp_path / files.REPORT).read_text()
    assert "trained on everybody&#39;s rows: they never left their clients" in page


def test_secure_sums_of_supernodes_that_know_each_other(tmp_path, hospitals, federate):
    told = ("aggregation=secagg", "aggregation.min_cohort=4", f"rounds={SECURE_ROUNDS}")
    on_supernodes(tmp_path / "remote", hospitals.environment, *told)
    expected = federate(*told)
    assert (tmp_path / "remote" / files.MODEL).read_bytes() == expected.model
    summary = files.read_json(tmp_path / "remote" / files.SUMMARY)
    assert summary["held_out"] == expected.summary["held_out"]
    assert summary["secure"] == expected.summary["secure"] | {"adversary": "active"}
    assert summary["secure"]["smallest_sum"] == 4


def test_three_go_on_while_one_is_slow(tmp_path, hospitals):
    """Its processes are stopped, not its SuperNode: that still says that it is there."""
    asynchronous = ("strategy=fedbuff", "strategy.buffer=1", "strategy.concurrency=4")
    told = (*asynchronous, f"rounds={FLUSHES}", f"evaluate_every={FLUSHES}")
    run = hospitals.run(tmp_path, *told)
    wait_for(lambda: rounds_of(tmp_path), 180)
    stopped = answering(hospitals.nodes[SLOW].pid)
    for process in stopped:
        process.suspend()
    time.sleep(1)  # What was answered by then has left; it is asked again when that came.
    wait_for(lambda: hospitals.at_work(SLOW), 60)
    first = len(rounds_of(tmp_path)) + 1
    wait_for(lambda: len(rounds_of(tmp_path)) >= first + 4, 180)
    for process in stopped:
        process.resume()
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0 and stopped, said
    lines = rounds_of(tmp_path)
    assert [line["round"] for line in lines] == list(range(1, FLUSHES + 1))
    during, after = lines[first : first + 4], lines[first + 4 :]
    assert not any(SLOW in line["staleness"] for line in during)
    assert all(line["at_work"].count(SLOW) == 1 for line in during)
    ages = [line["staleness"][SLOW] for line in after if SLOW in line["staleness"]]
    unused = files.read_json(tmp_path / files.SUMMARY)["unused"]
    assert ages[0] >= 4 if ages else SLOW in unused
    assert lines[-1]["evaluated"] == 4
