"""The same application, simulated by Flower and deployed on SuperNodes, trains the same model."""

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from benchmarks.secure_rounds import silos as identified
from server_app.engines.superlink import own_superlink, program
from server_app.evidence import files
from tests.flower import ROOT, deployment, fedproof, start, wait_for

pytestmark = pytest.mark.slow
ROUNDS = 2
# A SuperNode starts a process per message: few messages.
SETTINGS = (f"rounds={ROUNDS}", f"evaluate_every={ROUNDS}")
COMPARED = ("compare=true", "seeds=2")
SECURE_ROUNDS = int(os.environ.get("FEDPROOF_SECURE_ROUNDS", "1"))
"""One takes eight exchanges of some 20 s each where two cores serve all."""


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two seeds by engine local, each with its baselines."""
    directory = tmp_path_factory.mktemp("local")
    told = (*SETTINGS, *COMPARED, "federation.workers=1")
    done = fedproof(*told, f"hydra.run.dir={directory}")
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="module")
def local(compared):
    """A run by engine local: the reference. Baselines change nothing of it."""
    return compared / "seed-42"


def assert_same_run(directory: Path, reference: Path) -> None:
    model, expected = (load_file(d / files.MODEL) for d in (directory, reference))
    assert list(model) == list(expected)
    assert all(model[key].equal(expected[key]) for key in model)
    mine, theirs = (files.read_json(d / files.SUMMARY) for d in (directory, reference))
    for key in ("held_out", "clients", "rounds", "bytes_down", "bytes_up", "digests"):
        assert mine[key] == theirs[key], key


@pytest.fixture(scope="module")
def silos(tmp_path_factory):
    """Four SuperNodes with their own files and keys, whose operators pinned each other's."""
    folder = tmp_path_factory.mktemp("silos")
    configs = [f"{config} min-cohort=4" for config in identified(folder)]
    with deployment(folder / "flower", configs) as environment:
        yield environment


def on_supernodes(directory: Path, environment: dict[str, str], *told: str) -> str:
    done = fedproof(
        "federation=remote", "federation.superlink=silos", "federation.nodes=4",
        *told, f"hydra.run.dir={directory}", environment=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_four_supernodes_with_their_own_files(tmp_path, compared, silos):
    """They train the same model, and alone the same models, under each seed."""
    shown = on_supernodes(tmp_path, silos, *SETTINGS, *COMPARED)
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


def test_secure_sums_of_supernodes_that_know_each_other(tmp_path, silos, federate):
    told = ("aggregation=secagg", "aggregation.min_cohort=4", f"rounds={SECURE_ROUNDS}")
    on_supernodes(tmp_path / "remote", silos, *told)
    expected = federate(*told)
    assert (tmp_path / "remote" / files.MODEL).read_bytes() == expected.model
    summary = files.read_json(tmp_path / "remote" / files.SUMMARY)
    assert summary["held_out"] == expected.summary["held_out"]
    assert summary["secure"] == expected.summary["secure"] | {"adversary": "active"}
    assert summary["secure"]["smallest_sum"] == 4


def test_plain_flwr_run(tmp_path, local):
    """What a Flower user types, without the command."""
    directory = tmp_path / "run"
    overrides = f'overrides="{" ".join(SETTINGS)} run_dir={directory}"'
    with own_superlink(None) as link:
        done = subprocess.run(
            [program("flwr"), "run", ".", link.connection, "--stream", "--run-config", overrides],
            env=dict(link.environment), cwd=ROOT, text=True, capture_output=True, timeout=500,
            check=False,
        )  # fmt: skip
    output = done.stdout + done.stderr
    assert f"round {ROUNDS}/{ROUNDS} · 4/4 clients" in output, output
    assert_same_run(directory, local)


def test_flower_simulates_the_same(tmp_path, local):
    directory = tmp_path / "run"
    done = fedproof("federation=flower", *SETTINGS, f"hydra.run.dir={directory}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(directory, local)


def test_interrupting_a_simulation_leaves_nothing_running(tmp_path):
    directory = tmp_path / "run"
    with start("federation=flower", "rounds=5000", f"hydra.run.dir={directory}") as process:
        wait_for(lambda: len(files.read_lines(directory / files.METRICS)) >= 2, 300)
        family = psutil.Process(process.pid).children(recursive=True)
        assert {"flower-superlink", "flower-superexec"} & {Path(p.cmdline()[1]).name
                for p in family if len(p.cmdline()) > 1}  # fmt: skip
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert f"fedproof resume={directory}" in errors and "Traceback" not in errors
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    assert len(load_file(directory / "checkpoint.safetensors")) > 0
