"""How often, and how long, parts of a message are asked for."""

import sys
from types import ModuleType

from conf.flower import hasten, within


def test_parts_are_asked_for_soon_and_not_beyond_a_deadline(monkeypatch):
    told = []
    module = ModuleType("pulling")
    module.pull_objects = lambda ids, **options: told.append(options) or ids
    monkeypatch.setitem(sys.modules, "pulling", module)
    hasten("pulling")
    hasten("pulling")
    assert module.pull_objects([1], max_time=9) == [1]
    with within(2.5):
        module.pull_objects([2])
    first, second = told
    assert first == {"max_time": 9, "initial_backoff": 0.05, "backoff_cap": 1.0}
    assert second["max_time"] == 2.5 and second["max_tries_per_object"] is None
