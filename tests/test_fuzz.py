"""Random input to every parser and handler: refused or read, and never anything else."""

import pytest
from hypothesis import HealthCheck, given, settings

from tests.client_app.silo import KINDS, Silo, handler
from tests.fuzzing import TARGETS

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", TARGETS)
def test_parsers(name):
    strategy, target = TARGETS[name]
    FEW(given(strategy)(target))()


@pytest.mark.parametrize("kind", KINDS)
def test_handlers_of_a_silo(kind, tmp_path):
    silo = Silo(tmp_path)
    strategy, ask = handler(silo, kind)
    FEW(given(strategy)(ask))()
    receipts = silo.audit.receipts()
    assert len(receipts) >= 10 and {receipt.message for receipt in receipts} == {kind}
