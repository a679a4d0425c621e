"""Random input to every parser and handler: refused or read, and never anything else."""

import pytest
from flwr.app import ArrayRecord
from hypothesis import HealthCheck, given, settings

from tests.client_app.silo import LINEAGE, Silo
from tests.fuzzing import TARGETS, contents

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", TARGETS)
def test_parsers(name):
    strategy, target = TARGETS[name]
    FEW(given(strategy)(target))()


@pytest.mark.parametrize("kind", ["query", "train", "evaluate", "query.secure"])
def test_handlers_of_a_silo(kind, tmp_path):
    silo = Silo(tmp_path)
    honest = silo.header("", lineage=LINEAGE)
    told = {key: honest[key] for key in ("config", "code")}

    def ask(content):
        answer = silo.ask(kind, content=content)
        for part in answer.parts.values():
            assert not any(isinstance(record, ArrayRecord) for record in part.values())

    FEW(given(contents(**told))(ask))()
    receipts = silo.audit.receipts()
    assert len(receipts) >= 10 and {receipt.message for receipt in receipts} == {kind}
