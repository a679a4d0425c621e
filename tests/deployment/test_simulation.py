"""Flower simulates the application on Ray: the same model, and nothing left when interrupted."""

import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from server_app.engines.superlink import own_superlink, program
from server_app.evidence import files
from task.ports import free_port
from tests.conftest import run_nodes
from tests.flower import ROOT, assert_same_run, start, wait_for

pytestmark = pytest.mark.slow
ROUNDS = 2
SETTINGS = (f"rounds={ROUNDS}", f"evaluate_every={ROUNDS}")


def test_plain_flwr_run(tmp_path):
    """What a Flower user types, without the command."""
    directory = tmp_path / "run"
    overrides = f'overrides="{" ".join(SETTINGS)} run_dir={directory}"'
    with own_superlink(free_port()) as link:
        link.ready()
        done = subprocess.run(
            [program("flwr"), "run", ".", link.connection, "--stream", "--run-config", overrides],
            env=dict(link.environment), cwd=ROOT, text=True, capture_output=True, timeout=500,
            check=False,
        )  # fmt: skip
    output = done.stdout + done.stderr
    assert f"round {ROUNDS}/{ROUNDS} · 4/4 clients" in output, output
    assert_same_run(directory, run_nodes(tmp_path / "here", *SETTINGS).directory)


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
