"""Secure sums of SuperNodes whose operators pinned each other's keys: the model of a simulation."""

import os

import pytest
from safetensors.torch import load_file

from benchmarks.secure_rounds import silos
from server_app.evidence import files
from tests.flower import deployment, fedproof

pytestmark = pytest.mark.slow
ROUNDS = int(os.environ.get("FEDPROOF_SECURE_ROUNDS", "1"))
"""A round of four SuperNodes takes six exchanges of some 20 s each where two cores serve all."""
SETTINGS = ("aggregation=secagg", f"rounds={ROUNDS}")


def test_four_supernodes_that_know_each_other(tmp_path):
    configs = [f'{config} aggregation="secagg" min-cohort=4' for config in silos(tmp_path)]
    told = ("federation=remote", "federation.superlink=silos", "federation.nodes=4", *SETTINGS)
    demanded = ("aggregation.min_cohort=4",)
    remote, local = tmp_path / "remote", tmp_path / "local"
    with deployment(tmp_path / "flower", configs) as environment:
        done = fedproof(*told, *demanded, f"hydra.run.dir={remote}", environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    done = fedproof(*SETTINGS, *demanded, f"hydra.run.dir={local}")
    assert done.returncode == 0, done.stdout + done.stderr
    model, expected = (load_file(d / files.MODEL) for d in (remote, local))
    assert all(model[key].equal(expected[key]) for key in expected)
    mine, theirs = (files.read_json(d / files.SUMMARY) for d in (remote, local))
    assert mine["held_out"] == theirs["held_out"]
    assert mine["secure"] == theirs["secure"]
    assert mine["secure"]["adversary"] == "active" and mine["secure"]["smallest_sum"] == 4
