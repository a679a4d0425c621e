"""Asynchronous aggregation on real SuperNodes, one of which takes far longer than the others."""

import pytest

from benchmarks.data import hospitals
from server_app.evidence import files
from tests.flower import deployment, fedproof

pytestmark = pytest.mark.slow
ROUNDS = 8
SLOW = "cleveland"


def test_three_supernodes_go_on_while_one_is_slow(tmp_path):
    configs = []
    for path in hospitals.main(tmp_path / "data"):
        name = path.name.split(".")[1]
        if name == SLOW:
            path.write_text(path.read_text() * 400)
        configs.append(f'data="{path}" state="{tmp_path / name}"')
    with deployment(tmp_path / "flower", configs) as environment:
        done = fedproof(
            "federation=remote", "federation.superlink=silos", "federation.nodes=4",
            "strategy=fedbuff", "strategy.buffer=1", "strategy.concurrency=4",
            f"rounds={ROUNDS}", f"evaluate_every={ROUNDS}", f"hydra.run.dir={tmp_path / 'run'}",
            environment=environment,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = files.read_lines(tmp_path / "run" / files.METRICS)
    assert [line["round"] for line in lines] == list(range(1, ROUNDS + 1))
    # The others answer on models of their own time while it works on the first one.
    before = [line for line in lines if SLOW not in line["staleness"]]
    assert len(before) >= 3 and all(line["at_work"].count(SLOW) == 1 for line in before[:3])
    stale = [line["staleness"][SLOW] for line in lines if SLOW in line["staleness"]]
    summary = files.read_json(tmp_path / "run" / files.SUMMARY)
    assert all(age >= 3 for age in stale[:1]) and (stale or SLOW in summary["unused"])
    assert lines[-1]["evaluated"] == 4
