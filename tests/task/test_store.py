"""What clients keep between rounds: the right version, whole or not at all, on a full disk too."""

import errno
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import FedproofError
from task.store import ClientStore
from tests.conftest import interrupt
from tests.flower import ROOT

RUN = [("run", 0)]
CLIENT = "ward 7/../north"
KEPT = ("train.momentum=0.9", "train.keep_optimizer=true", "model.hidden=[8]")


def value(number):
    return {"velocity": torch.full((3,), float(number))}


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_round_reads_what_the_round_before_it_wrote(tmp_path):
    store = ClientStore(tmp_path, RUN)
    assert store.load(CLIENT, before=1) == {}
    store.save(CLIENT, 1, value(1), checkpointed=0)
    store.save(CLIENT, 3, value(3), checkpointed=1)
    assert store.load(CLIENT, before=3)["velocity"].equal(value(1)["velocity"])
    assert store.load(CLIENT, before=9)["velocity"].equal(value(3)["velocity"])
    assert store.load("another", before=9) == {}
    assert ClientStore(tmp_path, [("run2", 0)]).load(CLIENT, before=9) == {}
    assert all(tmp_path in path.resolve().parents for path in files(tmp_path))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.booleans(), st.booleans()), max_size=30))
def test_no_state_is_missed_and_few_are_kept(tmp_path_factory, steps):
    """Rounds sampled or not, checkpointed or not, resumed or not, against a plain history."""
    folder = tmp_path_factory.mktemp("states")
    lineage = [("p0", 0)]
    store = ClientStore(folder, lineage)
    history: dict[int, int] = {}
    number = checkpointed = 0
    for stamp, (times, sampled, resumed) in enumerate(steps, 1):
        if resumed:
            number = checkpointed
            lineage.append((f"p{stamp}", number))
            store = ClientStore(folder, lineage)
            history = {n: s for n, s in history.items() if n <= number}
        number += 1
        if sampled:
            found = store.load(CLIENT, before=number)
            expected = {n: s for n, s in history.items() if n < number}
            assert bool(found) == bool(expected)
            if expected:
                assert int(found["velocity"][0]) == expected[max(expected)]
            history[number] = stamp
            store.save(CLIENT, number, value(stamp), checkpointed)
            assert len(files(folder)) <= 3
        if times % 2:
            checkpointed = number


@pytest.mark.parametrize("name", ["", "../up", "a/b", "None!", "x" * 65])
def test_the_server_does_not_choose_the_folder(tmp_path, name):
    with pytest.raises(FedproofError, match="cannot be a folder"):
        ClientStore(tmp_path, [*RUN, (name, 1)])


def test_a_damaged_state_is_refused(tmp_path):
    store = ClientStore(tmp_path, RUN)
    store.save(CLIENT, 1, value(1), checkpointed=0)
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(FedproofError, match=r"damaged: delete its file"):
        store.load(CLIENT, before=2)


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    """With a real limit on the size of files, in a process of its own."""
    store = ClientStore(tmp_path, RUN)
    store.save(CLIENT, 1, value(1), checkpointed=0)
    before = files(tmp_path)
    script = (
        "import sys, torch; from pathlib import Path; from task.store import ClientStore\n"
        "ClientStore(Path(sys.argv[1]), [('run', 0)]).save("
        f"{CLIENT!r}, 2, {{'velocity': torch.zeros(100_000)}}, 1)"
    )
    limit = 1 << 16
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT, text=True, capture_output=True, check=False, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert "cannot be written: File too large." in done.stderr
    assert files(tmp_path) == before
    assert store.load(CLIENT, before=2)["velocity"].equal(value(1)["velocity"])


def test_what_is_kept_changes_the_model_and_not_with_the_nodes(federate):
    ran = federate("rounds=3", *KEPT)
    assert ran.model == federate("rounds=3", *KEPT, nodes=3).model
    assert ran.model != federate("rounds=3", "train.momentum=0.9", "model.hidden=[8]").model
    assert len(files(ran.directory / "clients")) <= 3 * 4


def test_a_resumed_run_goes_on_with_the_states_of_its_checkpoint(federate, tmp_path):
    every = ("rounds=4", "checkpoint_every=2", *KEPT)
    whole = federate(*every)
    directory = tmp_path / "cut"
    interrupt(federate, directory, *every, after=3)
    # Everyone has a state of round 4 by now, the checkpoint is of round 2.
    assert {path.name.split(".")[1] for path in files(directory / "clients")} == {"2", "3", "4"}
    assert federate(*every, f"resume={directory}", directory=directory).model == whole.model


def test_a_full_disk_costs_its_clients_the_round_only(federate, monkeypatch):
    write = Path.write_bytes
    full = set()

    def refuse(path, data):
        if "clients" in path.parts and len(full | {path.name}) <= 2:
            full.add(path.name)
            write(path, data[:20])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    ran = federate("rounds=2", *KEPT)
    first, second = ran.rounds
    assert len(full) == 2 and len(first["failed"]) == 2
    for client, reason in first["failed"].items():
        expected = f"what client '{client}' keeps cannot be written: No space left on device."
        assert reason == expected
    assert not second["failed"] and len(second["answered"]) == 4
    assert not [path for path in files(ran.directory) if path.name.endswith(".tmp")]
