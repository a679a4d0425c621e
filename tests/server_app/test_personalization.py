"""Personal models end to end: what travels, what stays, what resumes, what is reported."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, load_file

from conf.compose import compose
from server_app import checkpoint
from server_app.engines.local import run_local
from server_app.evaluate_model import held_out_metrics
from server_app.evaluating import worst_decile
from server_app.evidence import files
from server_app.evidence.events import watching
from server_app.evidence.tables import client_table, result_table
from task.wire import Cohort
from tests.conftest import interrupt
from tests.flower import ROOT
from tests.server_app.evidence.test_tables import render
from tests.server_app.secure.runs import difference

SHORT = ("rounds=2", "model.hidden=[8]", "train.steps=3", "federation.workers=1")
NEUTRAL = {
    "ditto": (),
    "apfl": ("personalization.alpha=0.0", "personalization.adaptive=false"),
    "fedper": ("personalization.layers=0",),
    "fedrep": ("personalization.layers=0",),
    "finetune": ("personalization.steps=0",),
}
CONVOLUTIONS = (
    "task=iot", "model.channels=[8,8]", "rounds=2", "train.steps=2", "federation.fraction=0.2",
    "federation.fraction_evaluate=0.1",
)  # fmt: skip


@pytest.fixture(scope="module")
def fedavg(tmp_path_factory):
    from tests.conftest import run_nodes

    return run_nodes(tmp_path_factory.mktemp("fedavg"), *SHORT)


def clients(ran):
    return files.read_lines(ran.directory / files.CLIENTS)


@pytest.mark.parametrize("name", NEUTRAL)
def test_with_neutral_settings_the_global_model_is_fedavgs(name, fedavg, federate):
    ran = federate(*SHORT, f"personalization={name}", *NEUTRAL[name])
    assert ran.model == fedavg.model
    for row, plain in zip(clients(ran), clients(fedavg), strict=True):
        assert row["global_accuracy"] == plain["accuracy"]
        assert name == "ditto" or row["accuracy"] == plain["accuracy"]


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedadam"])
def test_one_cluster_is_the_strategy(strategy, federate):
    chosen = (*SHORT, f"strategy={strategy}")
    plain = federate(*chosen)
    ran = federate(*chosen, "personalization=ifca", "personalization.clusters=1")
    assert load(ran.model).keys() == {f"0/{key}" for key in load(plain.model)}
    for key, value in load(plain.model).items():
        assert np.array_equal(load(ran.model)[f"0/{key}"], value)
    assert ran.summary["held_out"] == plain.summary["held_out"]


def blobs(ran):
    """Yield the bytes of every array, figure and setting that went over the wire."""
    for asked, answered in ran.grid.answered:
        for content in (asked.content, answered.content):
            for name, record in content.items():
                yield name.encode()
                for key, value in record.items():
                    yield key.encode()
                    yield bytes(value.data) if hasattr(value, "data") else str(value).encode()


@pytest.mark.parametrize(
    ("name", "overrides", "stays"),
    [
        ("fedper", SHORT, {"3.weight", "3.bias"}),
        ("fedrep", SHORT, {"3.weight", "3.bias"}),
        ("fedbn", CONVOLUTIONS, None),
        ("local", SHORT, {"1.weight", "1.bias", "3.weight", "3.bias"}),
    ],
)
def test_what_is_private_is_in_no_message(name, overrides, stays, federate):
    ran = federate(*overrides, f"personalization={name}", nodes=2)
    sent = list(blobs(ran))
    text = b"\n".join(sent)
    kept = [load_file(path) for path in sorted((ran.directory / "clients").rglob("*.safetensors"))]
    assert len(kept) >= 3
    for memory in kept:
        names = {key.removeprefix("own/model/") for key in memory}
        assert stays is None or names == stays
        for key, value in memory.items():
            assert key.removeprefix("own/model/").encode() not in sent
            # All of a small array, and its beginning: an array may be part of a longer one.
            assert value.tobytes() not in text and value.reshape(-1)[:6].tobytes() not in text
    assert not load(ran.model).keys() & names
    assert ran.summary["bytes_up"] > 0


def test_bytes_fall(fedavg, federate):
    fedper = federate(*SHORT, "personalization=fedper")
    shared = sum(value.nbytes for value in load(fedper.model).values())
    whole = sum(value.nbytes for value in load(fedavg.model).values())
    saved = fedavg.summary["bytes_down"] - fedper.summary["bytes_down"]
    # Twice four clients, to train and to evaluate, in two rounds; and the arrays' own headers.
    assert saved >= 2 * 2 * 4 * (whole - shared)
    assert fedper.summary["parameters"] * 4 == shared


@pytest.mark.parametrize("name", ["fedrep", "ditto", "apfl", "ifca", "local"])
def test_nothing_depends_on_the_nodes(name, federate):
    one = federate(*SHORT, f"personalization={name}")
    many = federate(*SHORT, f"personalization={name}", nodes=3)
    assert one.model == many.model
    assert clients(one) == clients(many)


@pytest.mark.parametrize(
    "chosen",
    [("personalization=fedper",), ("personalization=apfl",),
     ("personalization=ifca", "strategy=fedadam")],
)  # fmt: skip
def test_a_resumed_run_is_the_uninterrupted_one(chosen, federate, tmp_path):
    every = (*SHORT, "rounds=4", "checkpoint_every=2", "federation.fraction=0.5", *chosen)
    whole = federate(*every)
    directory = tmp_path / "cut"
    interrupt(federate, directory, *every, after=3)
    resumed = federate(*every, f"resume={directory}", directory=directory)
    assert resumed.model == whole.model
    assert clients(resumed) == clients(whole)


def test_who_never_trained_has_the_defined_start(federate):
    for name in ("fedper", "ditto", "apfl"):
        ran = federate(
            *SHORT, "rounds=1", "federation.fraction=0.5", f"personalization={name}"
        )  # fmt: skip
        trained = set(ran.rounds[0]["answered"])
        for row in clients(ran):
            same = row["loss"] == row["global_loss"]
            assert same == (row["client"] not in trained), name


def test_a_damaged_state_costs_its_client_the_round(federate):
    first = federate(*SHORT, "personalization=ditto")
    path = sorted((first.directory / "clients").rglob("*.2.*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-5])
    again = federate(
        *SHORT, "rounds=3", "personalization=ditto", f"resume={first.directory}",
        directory=first.directory,
    )  # fmt: skip
    ((client, reason),) = again.rounds[-1]["failed"].items()
    assert reason.startswith(f"what client '{client}' keeps is damaged: delete its file")
    assert again.rounds[-1]["evaluation_failed"] == {client: reason}
    assert len(again.rounds[-1]["answered"]) == 3


@pytest.mark.parametrize("name", ["fedper", "ditto", "apfl", "finetune", "ifca", "local"])
def test_a_saved_run_is_evaluated_as_it_was(name, federate):
    chosen = (*SHORT, f"personalization={name}")
    ran = federate(*chosen)
    found, rows = held_out_metrics(compose(chosen), ran.directory / files.MODEL)
    assert found == pytest.approx(ran.summary["held_out"], abs=1e-6)
    last = [row for row in clients(ran) if row["round"] == 2]
    for mine, theirs in zip(rows, last, strict=True):
        assert {"round": 2, **mine} == pytest.approx(theirs, abs=1e-6)


def test_where_no_states_are_everyone_is_new(federate, tmp_path):
    chosen = (*SHORT, "personalization=fedper")
    ran = federate(*chosen)
    model = tmp_path / files.MODEL
    model.write_bytes(ran.model)
    found, _ = held_out_metrics(compose(chosen), model)
    assert (
        found["accuracy"] == found["global_accuracy"] == ran.summary["held_out"]["global_accuracy"]
    )


def test_sums_that_hide_answers_hold_what_is_shared(federate):
    chosen = (*SHORT, "personalization=fedper")
    secure = ("aggregation=secagg", "task.scaling=local")
    plain = federate(*chosen, "task.scaling=local")
    hidden = federate(*chosen, *secure)
    assert load(hidden.model).keys() == load(plain.model).keys() == {"1.weight", "1.bias"}
    assert difference(hidden, plain) < 1e-4
    for key, value in plain.summary["held_out"].items():
        assert hidden.summary["held_out"][key] == pytest.approx(value, abs=0.02), key


def test_noise_on_records_covers_the_private_part_too(federate):
    dp = ("privacy=record_dp", "privacy.sigma=1.0", "task.scaling=local")
    ran = federate(*SHORT, *dp, "personalization=fedper")
    plain = federate(*SHORT, *dp)
    assert not ran.rounds[-1]["failed"]
    assert ran.summary["privacy"]["epsilon"] == plain.summary["privacy"]["epsilon"]
    heads = [load_file(p) for p in (ran.directory / "clients").rglob("*.2.*.safetensors")]
    again = federate(*SHORT, *dp, "personalization=fedper")
    others = [load_file(p) for p in (again.directory / "clients").rglob("*.2.*.safetensors")]
    # Noise is the operating system's, never the seed's: equal heads would have none.
    for mine in heads:
        assert not any(np.array_equal(mine["own/model/3.weight"], o["own/model/3.weight"])
                       for o in others)  # fmt: skip


def test_both_models_are_shown(federate):
    ran = federate(*SHORT, "personalization=fedper")
    text = render(result_table(ran.summary))
    assert "fedavg · fedper · round 2" in text and "personal" in text and "global" in text
    for figures in (ran.summary["held_out"], ran.summary["mean"], ran.summary["worst_decile"]):
        assert f"{figures['accuracy']:.4f}" in text and f"{figures['global_accuracy']:.4f}" in text
    table = render(client_table(ran.directory, ran.summary))
    assert "global_loss" in table and "auroc" not in table
    chosen = federate(*SHORT, "personalization=ifca")
    assert {row["cluster"] for row in clients(chosen)} <= {0, 1}
    assert "cluster" not in json.dumps(chosen.rounds[-1]["mean"])
    assert "cluster" not in json.dumps(chosen.rounds[-1]["weighted"])


def test_the_worst_tenth_is_by_direction():
    rows = [
        {"round": 1, "client": str(i), "num-examples": 5, "accuracy": i / 20, "global_loss": i}
        for i in range(20)
    ]
    worst = worst_decile(rows)
    assert worst == {"accuracy": pytest.approx(0.025), "global_loss": 18.5}
    assert worst_decile([rows[3]])["accuracy"] == 3 / 20


def test_a_checkpoint_holds_every_clusters_strategy(federate):
    ran = federate(*SHORT, "personalization=ifca", "strategy=fedadam")
    tensors, facts = checkpoint.load(Path(ran.directory) / checkpoint.CHECKPOINT)
    assert len(facts["strategy"]["strategies"]["strategies"]) == 2
    assert any(key.startswith("strategy/strategies.1/m_t") for key in tensors)


def test_answers_name_the_model_that_they_are_about(federate):
    ran = federate(*SHORT, "personalization=ifca", "personalization.clusters=3", nodes=4)
    models = []
    for _, answer in ran.grid.answered:
        for part in Cohort.unpack(answer.content).parts.values():
            if "arrays" in part:
                models.append({key.split("/")[0] for key in part["arrays"]})
    assert len(models) == 8 and all(len(numbers) == 1 for numbers in models)


def test_a_node_keeps_personal_models_where_its_operator_says(federate, tmp_path):
    chosen = (*SHORT, "personalization=ditto")
    places = [tmp_path / "north", tmp_path / "south"]
    nodes = [
        {"partition-id": i, "num-partitions": 2, "state": str(place)}
        for i, place in enumerate(places)
    ]
    ran = federate(*chosen, nodes=nodes)
    assert all(list(place.rglob("*.safetensors")) for place in places)
    assert not (ran.directory / "clients").exists()
    assert clients(ran) == clients(federate(*chosen))


@pytest.mark.slow
def test_nothing_depends_on_the_workers(tmp_path):
    found = []
    for workers in (1, 2):
        directory = tmp_path / str(workers)
        told = [*SHORT[:3], "personalization=ditto", f"federation.workers={workers}"]
        told.append(f"run_dir={directory}")
        with watching(lambda _: None):
            run_local(compose(tuple(told)), told, str(ROOT))
        lines = (directory / files.CLIENTS).read_bytes()
        found.append(((directory / files.MODEL).read_bytes(), lines))
    assert found[0] == found[1]
