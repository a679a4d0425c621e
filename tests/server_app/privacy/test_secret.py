"""Attack on secret cohorts: nothing outside the model tells who was drawn, nor how many."""

import json
import logging
import re
from fnmatch import fnmatch

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from conf.errors import FedproofError
from server_app import checkpoint
from server_app.evidence import progress, secret
from server_app.privacy import curator
from task.privacy import correlated
from task.privacy.noise import SecureNoise

# A clip so small, beside the noise, that models are the same to the last bit, whoever was drawn.
RUN = (
    "task=synthetic", "model=logistic", "task.shape=[6]", "task.classes=3", "task.clients=20",
    "task.rows=12", "federation.fraction=0.3", "federation.fraction_evaluate=0.5", "rounds=3",
    "privacy=client_dp", "privacy.sigma=1e8", "privacy.clip=1e-12", "privacy.delta=0.01",
    "profile=true",
)  # fmt: skip
DRAWS = ([[0, 1, 2, 3, 4, 5], [3, 4, 5], [7, 8, 9, 10]], [[9], [], [0, 1, 2, 3, 4, 11, 12, 13]])
_VARYING = (
    (r"\b[0-9a-f]{64}\b", "DIGEST"),
    (r"\"crc32\": \d+", "DIGEST"),
    (r'"[0-9a-f]{16}"', "RUN"),
    (r'"(started|time|seconds|server_directory)": ("[^"]*"|[0-9.e-]+)', "CLOCK"),
    (r"ETA \d+ s|seconds to evaluate\W+[0-9.]+", "CLOCK"),
    (r"\S*run-\d+\S*", "DIRECTORY"),
)


@pytest.fixture
def drawn(monkeypatch, federate, capfd, caplog):
    """Return what runs one set of draws, always with the same noise, and returns what is told."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(progress, "PERIOD", 1e9)

    def run(draws, *told, **more):
        left = iter(draws)
        monkeypatch.setattr(
            curator.Curator, "cohort", lambda self, clients, draw: [clients[i] for i in next(left)]
        )
        for module in (curator, correlated):
            monkeypatch.setattr(module, "SecureNoise", lambda: SecureNoise(bytes(32)))
        capfd.readouterr()
        caplog.clear()
        logging.getLogger("flwr").setLevel(logging.INFO)
        ran = federate(*RUN, *told, **more)
        out = capfd.readouterr()
        logged = [record.getMessage() for record in caplog.records if record.name == "flwr"]
        console = _same("\n".join([out.out, out.err, *logged]))
        return ran, {**_files(ran.directory), "console": console}

    yield run
    logging.getLogger("flwr").setLevel(logging.ERROR)


def _same(text):
    for pattern, put in _VARYING:
        text = re.sub(pattern, put, text)
    return text


def _files(directory):
    found = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        name = path.relative_to(directory).as_posix()
        if name.startswith("tensorboard/"):
            events = [Event.FromString(raw) for raw in RawEventFileLoader(str(path)).Load()]
            found["tensorboard"] = [
                {v.tag: v.simple_value for v in e.summary.value if v.tag != "run/seconds"}
                for e in events
            ]
        elif path.suffix == ".safetensors":
            tensors, facts = checkpoint.load(path) if "check" in name else ({}, {})
            found[name] = (_same(json.dumps(facts)), {k: v.tolist() for k, v in tensors.items()})
        else:
            found[name] = _same(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    "told",
    [(), ("aggregation=secagg",), ("compression=topk",), ("strategy=fedadam",)],
    ids=["plain", "secagg", "topk", "fedadam"],
)  # fmt: skip
def test_two_draws_leave_the_same_behind(told, drawn):
    (_, one), (_, two) = (drawn(draws, *told) for draws in DRAWS)
    assert one.keys() == two.keys()
    for name in one:
        assert one[name] == two[name], name


@pytest.mark.parametrize("told", [(), ("aggregation=secagg",)], ids=["plain", "secagg"])
def test_a_run_directory_holds_what_is_on_the_list_and_nothing_else(told, drawn):
    ran, _ = drawn(DRAWS[0], *told)
    for path in ran.directory.rglob("*"):
        name = path.relative_to(ran.directory).as_posix()
        assert path.is_dir() or any(fnmatch(name, listed) for listed in secret.FILES), name
    for line in ran.rounds:
        assert {key: line[key] for key in secret.TRAINING} == dict(secret.TRAINING)
        assert set(line["privacy"]) <= set(secret.PRIVACY)
        assert "secure" not in line and "profile" not in line


def test_an_adaptive_clip_tells_no_more_than_its_noised_count(drawn):
    """The clip is released with noise of its own; beside it nothing differs."""
    told = ("aggregation=secagg", "privacy.quantile=0.5")
    (one, _), (two, _) = (drawn(draws, *told) for draws in DRAWS)
    assert len({line["privacy"]["clip"] for line in one.rounds}) > 1
    for first, second in zip(one.rounds, two.rounds, strict=True):
        for line in (first, second):
            for key in ("seconds", "privacy"):
                del line[key]
        assert first == second


def test_a_sum_of_too_few_is_noise_like_any_other(drawn):
    """Two were drawn where three must be: the model moves, as if nothing had been missing."""
    ran, _ = drawn([[0, 1], [], [2]], "aggregation=secagg", "privacy.clip=0.5", "privacy.sigma=1.0")
    tensors, _ = checkpoint.load(ran.directory / checkpoint.CHECKPOINT)
    assert all(np.abs(tensors[name]).max() > 0.1 for name in tensors if name.startswith("model/"))
    assert ran.summary["rounds"] == 3


@pytest.mark.parametrize("told", [(), ("aggregation=secagg",)], ids=["plain", "secagg"])
def test_failures_name_nobody(told, drawn):
    alone = [{"partition-id": i, "num-partitions": 20} for i in range(20)]

    def tamper(reply):
        return None if reply.metadata.message_type == "train" else reply

    with pytest.raises(FedproofError) as ended:
        drawn([[3, 4, 5, 6]] * 9, *told, nodes=alone, tamper=tamper)
    assert not re.search(r"client-0|\b[1-9]\d* of|\b4\b", str(ended.value).split(":", 1)[1])
