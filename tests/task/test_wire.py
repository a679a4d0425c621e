import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from task.wire import HEADER, Cohort, WireError, wire_bytes

TEXT = st.text(min_size=1, max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(
    clients=st.dictionaries(TEXT, st.integers(0, 5), max_size=6),
    errors=st.dictionaries(TEXT, TEXT, max_size=3),
    header=st.dictionaries(TEXT, JSON, max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_unpacking_undoes_packing(clients, errors, header):
    parts = {
        client: RecordDict({"metrics": MetricRecord({"num-examples": n, "loss": [0.5, n / 2]})})
        for client, n in clients.items()
    }
    cohort = Cohort(parts, errors, header)
    back = Cohort.unpack(cohort.pack())
    assert back == cohort


def test_shared_records_travel_once():
    model = ArrayRecord([np.arange(1000, dtype=np.float32)])
    parts = {
        f"c{i}": RecordDict({"arrays": model, "config": ConfigRecord({"i": i})}) for i in range(9)
    }
    packed = Cohort(parts).pack()
    assert len(packed.array_records) == 1
    assert wire_bytes(packed) < 6_500
    back = Cohort.unpack(packed)
    told = [part.array_records["arrays"] for part in back.parts.values()]
    assert all(record is told[0] for record in told)
    assert [part.config_records["config"]["i"] for part in back.parts.values()] == list(range(9))


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({HEADER: MetricRecord({"layout": 1})}),
        RecordDict({HEADER: ConfigRecord({"layout": "{}", "errors": "{}"})}),
        RecordDict({HEADER: ConfigRecord({"layout": "{", "errors": "{}", "header": "{}"})}),
        RecordDict({HEADER: ConfigRecord({"layout": "[]", "errors": "{}", "header": "{}"})}),
        RecordDict({HEADER: ConfigRecord({"layout": "{}", "errors": "[]", "header": "{}"})}),
        RecordDict({HEADER: ConfigRecord({"layout": "{}", "errors": "{}", "header": "3"})}),
        RecordDict(
            {HEADER: ConfigRecord({"layout": '{"a":{"x":"r7"}}', "errors": "{}", "header": "{}"})}
        ),
    ],
)
def test_what_is_no_cohort_is_refused(content):
    with pytest.raises(WireError, match="not a cohort message"):
        Cohort.unpack(content)
