"""A parcel holds what was put in, in few objects, and one that was tampered with is not opened."""

import json

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from hypothesis import given, settings
from hypothesis import strategies as st

from server_app.compat import adopt_identity
from task.arrays import array_of, record_of
from task.parcel import PARCEL, SMALL, ParcelError, is_parcel, unwrap, wrap
from task.wire import Cohort, WireError, wire_bytes

NAMES = st.text(min_size=1, max_size=8)
ARRAYS = st.builds(
    lambda shape, dtype: array_of(np.arange(np.prod(shape), dtype=dtype).reshape(shape)),
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
    st.sampled_from(["float32", "float64", "int64", "uint8"]),
)
RECORDS = (
    st.dictionaries(NAMES, ARRAYS, max_size=4).map(record_of)
    | st.dictionaries(NAMES, st.integers(-(2**60), 2**60) | st.floats(allow_nan=False)).map(
        MetricRecord
    )
    | st.dictionaries(NAMES, st.binary() | st.text() | st.booleans()).map(ConfigRecord)
)


def model(count: int = 6, size: int = 10) -> RecordDict:
    arrays = {f"layer.{i}": array_of(np.full(size, i, np.float32)) for i in range(count)}
    return RecordDict({"arrays": record_of(arrays), "config": ConfigRecord({"server-round": 1})})


def objects(content: RecordDict) -> int:
    adopt_identity(1)
    return len(get_all_nested_objects(Message(content, 1, "train")))


@given(st.dictionaries(NAMES, RECORDS, max_size=5).map(RecordDict))
@settings(max_examples=150, deadline=None)
def test_opening_undoes_wrapping(content):
    back = unwrap(wrap(content))
    assert back == content
    assert list(back) == list(content) and wire_bytes(back) == wire_bytes(content)
    for name, record in content.items():
        assert type(back[name]) is type(record) and list(back[name]) == list(record)


def test_a_model_is_few_objects():
    assert (objects(model()), objects(wrap(model()))) == (16, 3)
    large = wrap(model(size=SMALL))
    assert objects(large) == 7 and unwrap(large) == model(size=SMALL)


def test_large_models_are_the_same_object_whatever_else_a_node_is_told():
    """A SuperLink stores objects by their hash."""
    one, other = model(size=SMALL), model(size=SMALL)
    other["config"] = ConfigRecord({"server-round": 2})
    values = [wrap(content)["values"].object_id for content in (one, other)]
    assert values[0] == values[1]


def test_what_is_one_small_record_stays_as_it_is():
    content = Cohort(header={"code": "1"}).pack()
    assert wrap(content) is content and unwrap(content) is content and not is_parcel(content)


def tampered(**changes):
    parcel = wrap(model())
    parcel[PARCEL].update(changes)
    return parcel


@pytest.mark.parametrize(
    "parcel",
    [
        tampered(index="["),
        tampered(index="[" * 100_000),
        tampered(index=json.dumps([["a", "arrays", [["k", "float32", [2], "numpy.ndarray", -8]]]])),
        tampered(index=json.dumps([["a", "arrays", [["k", "float32", [2], "x", 2**62]]]])),
        tampered(index=json.dumps([["a", "arrays", [["k", 3, [2], "x", 8]]]])),
        tampered(index=json.dumps([["a", "config", True]])),
        tampered(index=json.dumps([["a", "config", 4]])),
        tampered(index="[]"),
        tampered(values=b""),
        tampered(values="text"),
        tampered(records=b"\x00" * 99),
        RecordDict({PARCEL: ConfigRecord()}),
        RecordDict(
            {PARCEL: ConfigRecord({"index": "[]", "records": b""}), "values": MetricRecord()}
        ),
    ],
)
def test_what_was_tampered_with_is_not_opened(parcel):
    with pytest.raises(ParcelError, match="cannot be opened"):
        unwrap(parcel)
    with pytest.raises(WireError, match="not a cohort message"):
        Cohort.unpack(parcel)


def test_a_record_of_that_name_is_no_parcel_by_itself():
    content = RecordDict({PARCEL: ArrayRecord()})
    assert unwrap(content) is content
