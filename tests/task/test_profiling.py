import time

import pytest

from task.profiling import Stopwatch


def test_stages_within_stages_count_once():
    clock = Stopwatch()
    with clock.stage("outer"):
        time.sleep(0.02)
        with clock.stage("inner"):
            time.sleep(0.05)
    with clock.stage("inner"):
        time.sleep(0.01)
    assert 0.06 <= clock.seconds["inner"] < 0.5
    assert 0.02 <= clock.seconds["outer"] < clock.seconds["inner"]


def test_an_error_is_timed_and_goes_on():
    clock = Stopwatch()
    with pytest.raises(ValueError, match="x"), clock.stage("a"):
        raise ValueError("x")
    with clock.stage("b"):
        pass
    assert list(clock.seconds) == ["a", "b"]


def test_adding():
    clock = Stopwatch()
    clock.add({"a": 1.0})
    clock.add({"a": 0.5, "b": 2.0})
    assert clock.seconds == {"a": 1.5, "b": 2.0}
