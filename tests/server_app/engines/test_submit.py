"""Following a run, with a stand-in for Flower's command."""

import sys

import psutil
import pytest

from conf.errors import FedproofError
from server_app.engines import submit as submitting
from server_app.engines.submit import submit
from server_app.engines.superlink import Link, quiet_environment
from tests.flower import ROOT

FLWR = """#!{python}
import sys
if sys.argv[1] == "run":
    {run}
else:
    print('{{"runs": [{{"status": "{status}"}}]}}')
"""
STARTED = 'print("INFO: Successfully started run 123");'


@pytest.fixture
def flwr(stand_in):
    def pretend(run, status="finished:completed", ready=lambda: None):
        stand_in(submitting, FLWR.format(python=sys.executable, run=run, status=status))
        events = []
        submit(Link("here", quiet_environment(), ready), ROOT, "rounds=1", (), events.append)
        return events

    return pretend


def test_events_reach_the_watcher(flwr):
    line = 'FEDPROOF-EVENT {"event": "round", "round": 1}'
    assert flwr(f"{STARTED} print('{line}'); print('chatter')") == [{"event": "round", "round": 1}]


def test_a_superlink_that_cannot_be_reached(flwr):
    with pytest.raises(FedproofError, match="to SuperLink 'here': Connection refused"):
        flwr('print("╭─ Error ─╮"); print("│ Connection refused │"); sys.exit(1)')


def test_the_command_waits_for_the_superlink(flwr, tmp_path):
    mark = tmp_path / "ready"
    run = f'{STARTED} import pathlib; pathlib.Path("{mark}").rmdir()'
    assert flwr(run, ready=mark.mkdir) == []
    assert not mark.exists()


def test_a_superlink_that_does_not_start_leaves_no_command_waiting(flwr, tmp_path):
    def never():
        raise FedproofError("it did not start.")

    with pytest.raises(FedproofError, match="^it did not start.$"):
        flwr(STARTED, ready=never)
    left = [child.cmdline() for child in psutil.Process().children()]
    assert not any(str(tmp_path / "program") in command for command in left)


def test_the_runs_own_sentence_goes_before_its_status(flwr):
    line = 'FEDPROOF-EVENT {"event": "error", "sentence": "lower the learning rates."}'
    with pytest.raises(FedproofError, match="^lower the learning rates.$"):
        flwr(f"{STARTED} print('{line}')", status="finished:failed")


def test_a_run_that_fails_shows_its_last_lines(flwr):
    with pytest.raises(FedproofError, match="ended as finished:failed.*\n.*\nboom"):
        flwr(f"{STARTED} print('boom')", status="finished:failed")


def test_only_a_checkout_can_be_submitted(tmp_path):
    with pytest.raises(FedproofError, match="has no pyproject.toml.*run fedproof from a checkout"):
        submit(Link("here", {}), tmp_path, "", (), print)


def test_a_run_that_announced_its_summary_is_not_asked_how_it_ended(flwr):
    line = 'FEDPROOF-EVENT {"event": "summary"}'
    assert flwr(f"{STARTED} print('{line}')", status="unknown") == [{"event": "summary"}]
