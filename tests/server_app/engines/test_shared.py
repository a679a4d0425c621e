"""Large data crosses through memory, once, and comes out as it went in."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from server_app.engines.shared import SMALL, Outbox, Port


@pytest.fixture
def ends():
    mine, theirs = multiprocessing.Pipe()
    out = Outbox()
    yield out, Port(mine, out), Port(theirs, Outbox())
    out.close()
    mine.close()
    theirs.close()


def record(size, seed=0):
    values = np.random.default_rng(seed).standard_normal(size)
    return ArrayRecord({"w": Array(values)}), values


def send(ends, *items):
    out, mine, theirs = ends
    parcels = out.pack(items)
    for parcel in parcels:
        mine.send(parcel)
    return parcels, [theirs.receive() for _ in parcels]


@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_round_trip(sizes):
    mine, theirs = multiprocessing.Pipe()
    out = Outbox()
    records = [record(size, seed) for seed, size in enumerate(sizes)]
    contents = [RecordDict({"m": r, "c": ConfigRecord({"a": 1})}) for r, _ in records]
    _, received = send((out, Port(mine, out), Port(theirs, Outbox())), *contents)
    for content, (_, values) in zip(received, records, strict=True):
        assert np.array_equal(content["m"]["w"].numpy(), values) and content["c"]["a"] == 1
    out.close()


def test_what_messages_share_is_written_once(ends):
    shared, values = record(SMALL)
    parcels, received = send(ends, {"a": shared}, {"b": shared, "n": 2})
    assert parcels[0].spans == parcels[1].spans and len(parcels[0].spans) == 1
    assert all(len(parcel.pickled) < 2000 for parcel in parcels)
    assert np.array_equal(received[0]["a"]["w"].numpy(), values)
    assert np.array_equal(received[1]["b"]["w"].numpy(), values)


def test_memory_is_used_again_and_grows(ends):
    out = ends[0]
    for size, version in ((30_000, 1), (20_000, 1), (60_000, 2), (60_000, 2)):
        item, values = record(size, version)
        _, ((received),) = send(ends, item)
        assert np.array_equal(received["w"].numpy(), values)
        assert out.version == version


def test_small_data_needs_no_memory(ends):
    item, values = record(10)
    parcels, (received,) = send(ends, item)
    assert ends[0].version == 0 and not parcels[0].spans
    assert np.array_equal(received["w"].numpy(), values)


def test_no_file_descriptor_is_left():
    def count():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    for _ in range(5):
        mine, theirs = multiprocessing.Pipe()
        out = Outbox()
        send((out, Port(mine, out), Port(theirs, Outbox())), record(30_000)[0])
        out.close()
        mine.close()
        theirs.close()
    assert count() <= before + 1
