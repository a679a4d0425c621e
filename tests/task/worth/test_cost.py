from __future__ import annotations

import pytest

from conf.comparison import LinkConfig
from task.worth.cost import Measured, project

MEASURED = Measured(rounds=10, cohort=5, clients=50, down=1_000_000, up=500_000, seconds=2.0)


def test_the_arithmetic_by_hand() -> None:
    link = LinkConfig(up_mbps=1, down_mbps=8, latency_ms=100)
    steps = project(MEASURED, link)
    values = [step.value for step in steps]
    assert values == pytest.approx(
        [0.2, 1.0, 4.0, 2.0, 7.2, 72.0, 5, 5 * 1_500_000, 10 * 5 * 1_500_000]
    )
    assert steps[1].formula == "1,000,000 B × 8 / 8 Mbit/s"
    assert steps[-1].formula == "10 × 7,500,000 B"


def test_a_million_clients_load_the_server_not_each_other() -> None:
    few, many = (project(MEASURED, LinkConfig(clients=n)) for n in (50, 1_000_000))
    assert [s.value for s in few[:6]] == [s.value for s in many[:6]]
    assert many[6].value == 100_000
    assert many[-1].value == pytest.approx(20_000 * few[-1].value)
