import sys
from types import SimpleNamespace

from flwr.superlink.grid import InMemoryGrid

from server_app import compat
from server_app.compat import await_ray

SIMULATED = object.__new__(InMemoryGrid)


def test_a_serverapp_lets_ray_start_first(monkeypatch):
    answers = [False, False, True]
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: answers.pop(0)))
    await_ray(SIMULATED)
    assert not answers


def test_a_serverapp_does_not_wait_where_no_ray_starts(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    await_ray(object())
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    monkeypatch.setattr(compat, "PATIENCE", 0.05)
    await_ray(SIMULATED)
