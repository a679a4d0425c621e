"""What breaks while four SuperNodes train: the run goes on, or ends and can be resumed."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.soak import answering
from server_app.engines.superlink import program
from server_app.evidence import files
from tests.flower import ROOT, wait_for
from tests.outage import rounds_of

pytestmark = pytest.mark.slow
ALL = ["cleveland", "hungary", "switzerland", "va"]
ROUNDS = 5
SHORT = (f"rounds={ROUNDS}", f"evaluate_every={ROUNDS}", "model=logistic")


def rounds_done(directory, count):
    wait_for(lambda: len(rounds_of(directory)) >= count, 180)


def finished(process, directory, rounds=ROUNDS):
    """Return the lines of the rounds of a run that went on to its end."""
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert len(rounds_of(directory)) == rounds
    return rounds_of(directory)


def model(directory: Path) -> bytes:
    return (directory / files.MODEL).read_bytes()


def test_a_silo_that_is_late_and_then_cut_off_for_a_while(tmp_path, hospitals):
    """It is named for the rounds that it misses, and takes part again.

    What was on its way when the network was cut may be lost, too.
    """
    run = hospitals.run(tmp_path, *SHORT, "rounds=10", "evaluate_every=10", "federation.timeout=10")
    node = psutil.Process(hospitals.nodes["va"].pid)
    rounds_done(tmp_path, 1)
    family = [node, *node.children(recursive=True)]
    for process in family:
        process.suspend()
    wait_for(lambda: any(line["answered"] == ALL[:3] for line in rounds_of(tmp_path)), 60)
    for process in family:
        process.resume()
    back = len(rounds_of(tmp_path)) + 1
    wait_for(lambda: any(line["answered"] == ALL for line in rounds_of(tmp_path)[back:]), 90)
    hospitals.networks["va"].cut()
    time.sleep(4)
    hospitals.networks["va"].heal()
    lines = finished(run, tmp_path, 10)
    without = [line for line in lines if line["answered"] != ALL]
    assert all(line["answered"] == ALL[:3] for line in without)
    assert all(line["failed"] == {"va": "no answer in time"} for line in without)
    assert lines[0]["answered"] == lines[-1]["answered"] == ALL


def test_a_process_that_dies_over_a_message(tmp_path, hospitals):
    """Its client is left out at once, not after the minute that Flower waits."""
    run = hospitals.run(tmp_path, *SHORT)
    rounds_done(tmp_path, 1)
    workers = answering(hospitals.nodes["va"].pid)
    for process in workers:
        process.suspend()
    time.sleep(1)  # What was answered by then has left.
    wait_for(lambda: hospitals.at_work("va"), 60)
    time.sleep(2)  # Handed to the process by then.
    for process in workers:
        process.kill()
    lines = finished(run, tmp_path)
    (hit,) = (line for line in lines if line["failed"])
    assert hit["answered"] == ALL[:3] and "ClientApp failed" in hit["failed"]["va"]
    assert hit["seconds"] < 40 and lines[-1]["answered"] == ALL


def test_an_answer_that_is_sent_twice_and_a_superlink_that_is_restarted(
    tmp_path, hospitals, federate
):
    """A connection ends after the SuperLink got the answer, and before the node knows."""
    run = hospitals.run(tmp_path, *SHORT, "rounds=60")
    network = hospitals.networks["va"]
    rounds_done(tmp_path, 1)
    network.swallow = b"/v1/fleet/push-messages"
    assert network.swallowed.wait(60)
    rounds_done(tmp_path, len(rounds_of(tmp_path)) + 1)
    hospitals.kill(hospitals.superlink)
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 1
    assert said.splitlines()[-1].endswith("start it again, then resume the run.")
    done = len(rounds_of(tmp_path))
    assert done < ROUNDS
    hospitals.start_superlink()
    resumed = hospitals.run(tmp_path, f"resume={tmp_path}", f"rounds={ROUNDS}")
    assert all(line["answered"] == ALL for line in finished(resumed, tmp_path))
    assert model(tmp_path) == federate(*SHORT).model


@pytest.mark.skipif("FEDPROOF_CLOCKS" not in os.environ, reason="long: FEDPROOF_CLOCKS=1 runs it")
def test_clocks_that_jump(tmp_path, hospitals):
    """A silo's by an hour: it is refused, and missed, not waited for. The SuperLink's: all are."""
    run = hospitals.run(tmp_path, "rounds=60", "federation.min_clients=3")
    rounds_done(tmp_path, 1)
    hospitals.end_by_clock("va", -3700)
    wait_for(lambda: any(line["failed"] for line in rounds_of(tmp_path)), 90)
    wait_for(lambda: rounds_of(tmp_path)[-1]["answered"] == ALL, 120)
    hit = [line for line in rounds_of(tmp_path) if line["failed"]]
    assert [line["failed"] for line in hit] == [{"va": "its node left"}]
    assert hit[0]["seconds"] < 60
    hospitals.clocks["superlink"].jump(3700)
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 1 and "Traceback" not in said
    wait_for(lambda: all(node.poll() is not None for node in hospitals.nodes.values()), 60)
    hospitals.clocks["superlink"].jump(0)
    for name in ALL:
        hospitals.start_node(name)
    done = len(rounds_of(tmp_path))
    resumed = hospitals.run(tmp_path, f"resume={tmp_path}", f"rounds={done + 2}")
    lines = finished(resumed, tmp_path, done + 2)
    assert lines[-2]["answered"] == lines[-1]["answered"] == ALL


FULL = """
mount -t tmpfs -o size=120k none "$1" || exit 77
"$2" rounds=60 federation.workers=1 hydra.run.dir="$1"; echo "ended with $?"
mount -o remount,size=20m "$1"
"$2" resume="$1" federation.workers=1 || exit 1
cp -r "$1"/* "$3"
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_a_disk_that_fills_up_at_the_server(tmp_path, federate):
    """A disk of 120 kB, in a mount namespace of its own; made larger, the run goes on."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    command = ["unshare", "-rm", "sh", "-c", FULL, "sh", disk, program("fedproof"), kept]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("may not mount")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ended with 1" in done.stdout and "Traceback" not in done.stderr
    assert f"fedproof: {disk} cannot be written (" in done.stderr
    assert "No space left on device" in done.stderr
    assert [line["round"] for line in rounds_of(kept)] == list(range(1, 61))
    assert model(kept) == federate("rounds=60").model
