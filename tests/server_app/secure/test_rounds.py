"""Secure sums in the round loop: resuming, cohorts, rounds without evaluation, workers."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load

from conf.compose import compose
from server_app.checkpoint import CHECKPOINT
from server_app.engines.local import run_local
from server_app.evidence import files
from server_app.evidence.events import watching
from tests.conftest import ROOT
from tests.server_app.secure.runs import SHORT, difference, without

SECURE = (*SHORT, "aggregation=secagg")


def exchanges(run):
    """Return how many exchanges a run took after nodes were known."""
    return len([m for m in run.grid.sent if m.metadata.message_type != "query"])


def test_neighbouring_sums_share_exchanges(federate):
    """A round in clear takes two; here keys and shares travel along with what is due anyway."""
    short, long = federate(*SECURE, "rounds=1"), federate(*SECURE, "rounds=4")
    assert (exchanges(long) - exchanges(short)) / 3 == 6
    assert exchanges(short) == 8


def test_rounds_without_evaluation_take_three(federate):
    few = federate(*SECURE, "rounds=2", "evaluate_every=9")
    many = federate(*SECURE, "rounds=5", "evaluate_every=9")
    assert (exchanges(many) - exchanges(few)) / 3 == 3
    assert [("held_out" in line) for line in many.rounds] == [False] * 4 + [True]


def test_sampled_cohorts(federate):
    told = ("rounds=3", "federation.fraction=0.75", "federation.workers=1", "train.steps=3")
    plain, hidden = federate(*told), federate(*told, "aggregation=secagg")
    assert [line["sampled"] for line in hidden.rounds] == [line["sampled"] for line in plain.rounds]
    assert [line["secure"]["sums"] for line in hidden.rounds] == [[3]] * 3
    assert difference(plain, hidden) <= 20 * hidden.summary["secure"]["error"] + 1e-6


def test_a_resumed_run_goes_on(federate):
    whole = federate(*SECURE, "rounds=4")
    half = federate(*SECURE, "rounds=2")
    ran = federate(*SECURE, "rounds=4", f"resume={half.directory}", directory=half.directory)
    assert [line["secure"]["sums"] for line in ran.rounds] == [[4]] * 4
    assert ran.model == whole.model


def test_rounds_that_are_done_again_are_opened_for_the_same_cohort_only(federate):
    """What is after the last checkpoint is lost to the server, but the clients remember.

    A resumed run has an id of its own; a sum of the same model over fewer clients would show
    those that are missing.
    """
    directory = federate(*SECURE, "rounds=2").directory
    checkpoint = directory / CHECKPOINT
    early = checkpoint.read_bytes()
    resumed = (*SECURE, f"resume={directory}")
    federate(*resumed, "rounds=4", directory=directory)
    checkpoint.write_bytes(early)
    ran = federate(
        *resumed, "rounds=5", directory=directory, tamper=without("va", "train", (1,))
    )  # fmt: skip
    assert [line["secure"]["sums"] for line in ran.rounds] == [[4], [4], [], [4], [4]]
    assert "0 shares of the mask" in str(ran.rounds[2]["secure"]["abandoned"])


def test_workers_do_not_matter(tmp_path):
    models = []
    for workers in (1, 2):
        directory = tmp_path / str(workers)
        told = (
            "aggregation=secagg", "rounds=2", "train.steps=3", "model.hidden=[8]",
            f"federation.workers={workers}", f"run_dir={directory}",
        )  # fmt: skip
        with watching(lambda _: None):
            run_local(compose(told), told, str(ROOT))
        models.append(load((directory / files.MODEL).read_bytes()))
    assert all(np.array_equal(models[0][key], models[1][key]) for key in models[0])


@pytest.mark.parametrize("clients", [48])
def test_a_large_cohort_shares_masks_with_neighbours(federate, clients):
    told = (
        "task=synthetic", f"task.clients={clients}", "task.shape=[4]", "rounds=1",
        "train.steps=1", "federation.workers=1", "federation.fraction=1",
    )  # fmt: skip
    plain, hidden = federate(*told), federate(*told, "aggregation=secagg")
    assert hidden.rounds[0]["secure"]["sums"] == [clients]
    assert difference(plain, hidden) <= hidden.summary["secure"]["error"] + 2.0**-22
