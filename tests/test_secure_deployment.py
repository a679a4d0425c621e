"""Secure sums of SuperNodes whose operators pinned each other's keys: the model of a simulation."""

import os

import pytest
from safetensors.torch import load_file

from benchmarks.data import hospitals
from server_app.evidence import files
from task.identity import Identity
from tests.flower import deployment, fedproof

pytestmark = pytest.mark.slow
ROUNDS = int(os.environ.get("FEDPROOF_SECURE_ROUNDS", "1"))
"""A round of four SuperNodes takes six exchanges of some 20 s each where two cores serve all."""
SETTINGS = ("aggregation=secagg", f"rounds={ROUNDS}")


def test_four_supernodes_that_know_each_other(tmp_path):
    silos = hospitals.main(tmp_path / "data")
    names = [path.name.split(".")[1] for path in silos]
    roster = tmp_path / "roster"
    lines = []
    for name in names:
        identity = Identity()
        identity.write(tmp_path / f"{name}.key")
        lines.append(f"{identity.public.hex()} {name}\n")
    roster.write_text("".join(lines))
    configs = [
        f'data="{path}" identity="{tmp_path / name}.key" roster="{roster}" '
        f'state="{tmp_path / name}" aggregation="secagg" min-cohort=4'
        for path, name in zip(silos, names, strict=True)
    ]
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
