"""One id for the same rows, whatever becomes of their file; one ledger, whatever was there."""

import contextlib
import gzip
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import FedproofError
from task.privacy import fingerprint, source_index
from task.privacy.accounting import Spend
from task.privacy.fingerprint import overlap, take_fingerprint
from task.privacy.ledger import Entry, Ledger
from task.privacy.source_index import INDEX, SourceIndex
from task.privacy.source_key import KEY
from tests.flower import ROOT

HEADER = "age,pressure,ill"
KEY_A = bytes(32)


def table(seed, count=200):
    rng = random.Random(seed)
    return [f"{rng.random():.4f},{rng.random():.4f},{rng.choice('yn')}" for _ in range(count)]


def write(path, rows, header=HEADER):
    path.parent.mkdir(exist_ok=True)
    text = "".join(f"{row}\n" for row in (header, *rows))
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def index(tmp_path):
    return SourceIndex(tmp_path / "ledgers")


@pytest.fixture
def first(tmp_path, index):
    path = write(tmp_path / "ward.csv", table(1))
    return path, index.find(path).source


def shuffled(rows):
    return random.Random(3).sample(rows, len(rows))


def linked(path, link):
    link.symlink_to(path)
    return link


CHANGES = {
    "renamed": lambda p: p.rename(p.with_name("other.csv")),
    "copied": lambda p: shutil.copy(p, p.with_name("copy.csv")),
    "linked": lambda p: linked(p, p.with_name("link.csv")),
    "re-ordered": lambda p: write(p.with_name("b.csv"), shuffled(table(1))),
    "appended": lambda p: write(p.with_name("b.csv"), table(1) + table(2, 1800)),
    "other header": lambda p: write(p.with_name("b.csv"), table(1), "a,b,c"),
    "Windows lines": lambda p: write(p.with_name("b.csv"), [f"{row}\r" for row in table(1)]),
    "half": lambda p: write(p.with_name("b.csv"), table(1)[:100]),
    "one in fifty": lambda p: write(p.with_name("b.csv"), table(1)[:4] + table(2)),
    "gzipped": lambda p: write(p.with_name("b.csv.gz"), table(1)),
    "in a folder": lambda p: write(p.with_name("wards") / "b.csv", table(1)).parent,
    "another column": lambda p: write(p, [f"{row},{n}" for n, row in enumerate(table(1))]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_rows_are_one_source(change, first, tmp_path):
    path, source = first
    assert SourceIndex(tmp_path / "ledgers").find(CHANGES[change](path)).source == source


def test_other_rows_are_another_source(first, tmp_path, index):
    found = {first[1]}
    for seed in range(2, 8):
        found.add(index.find(write(tmp_path / f"{seed}.csv", table(seed))).source)
    assert len(found) == 7


def test_parquet_by_records_and_anything_else_by_blocks(tmp_path, index):
    frame = pandas.DataFrame({"a": np.arange(500) * 1.5, "b": [f"p{n}" for n in range(500)]})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.sample(frac=1, random_state=0).to_parquet(tmp_path / "b.parquet")
    (frame + frame).to_parquet(tmp_path / "c.parquet")
    noise = np.random.default_rng(0).bytes(40_000)
    (tmp_path / "d.npy").write_bytes(b"\0" + noise)
    (tmp_path / "e.bin").write_bytes(b"\0" + noise + noise[:9000])
    a, b, c, d, e = (index.find(tmp_path / name).source for name in
                     ("a.parquet", "b.parquet", "c.parquet", "d.npy", "e.bin"))  # fmt: skip
    assert a == b and d == e and len({a, c, d}) == 3


def test_what_has_not_changed_is_not_read_again(first, tmp_path, monkeypatch):
    path, source = first
    monkeypatch.setattr(source_index, "take_fingerprint", None)
    again = SourceIndex(tmp_path / "ledgers")
    assert again.find(path).source == source
    write(path, [*table(1), "1,2,y"])
    with pytest.raises(TypeError):
        again.find(path)


def test_the_state_follows_the_content(first, index):
    path, _ = first
    numbers = [index.find(path).number]
    os.utime(path, (1, 1))
    numbers.append(index.find(path).number)
    for rows in ([*table(1), "1,2,y"], shuffled(table(1)), table(1)):
        numbers.append(index.find(write(path, rows)).number)
    assert numbers == [1, 1, 2, 3, 1]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3 * fingerprint.KEPT), st.integers(0, 3 * fingerprint.KEPT), st.floats(0, 1))
def test_the_overlap_is_that_of_the_rows(count, more, share):
    rng = np.random.default_rng([count, more])
    values = np.unique(rng.integers(0, 2**62, count + more + 1).astype(np.uint64))
    rng.shuffle(values)
    left, right = values[:count], values[count - round(share * count) :]
    common = len(np.intersect1d(left, right))
    truth = common / min(len(left), len(right)) if len(right) else 0.0
    sketches = [np.unique(rows)[: fingerprint.KEPT] for rows in (left, right)]
    if max(len(left), len(right)) < fingerprint.KEPT:
        assert overlap(*sketches) == pytest.approx(truth)
    elif min(len(left), len(right)) > 1000:
        assert overlap(*sketches) == pytest.approx(truth, abs=0.15)


def test_without_the_key_no_row_can_be_tested(tmp_path):
    path = write(tmp_path / "a.csv", table(1))
    mine, other = (take_fingerprint(path, key) for key in (KEY_A, b"k" * 32))
    assert overlap(mine.sketch, other.sketch) == 0 and mine.state != other.state


def test_the_key_is_private_made_once_and_missed(first, tmp_path, index):
    key = tmp_path / "ledgers" / KEY
    assert key.stat().st_mode & 0o777 == 0o600 and len(index.secret) == 32
    assert SourceIndex(tmp_path / "ledgers").secret == index.secret
    key.chmod(0o644)
    with pytest.raises(FedproofError, match=r"others may read .*chmod 600"):
        _ = SourceIndex(tmp_path / "ledgers").secret
    key.unlink()
    write(first[0], table(1) + table(2))
    with pytest.raises(FedproofError, match="key .* is gone"):
        SourceIndex(tmp_path / "ledgers").find(first[0])


def test_a_ledger_that_the_index_does_not_know_is_refused(first, tmp_path):
    path, source = first
    Ledger(tmp_path / "ledgers" / f"{source}.jsonl").spend(entry(1), free)
    (tmp_path / "ledgers" / INDEX).unlink()
    (tmp_path / "ledgers" / KEY).unlink()
    with pytest.raises(FedproofError, match="does not know: put back"):
        SourceIndex(tmp_path / "ledgers").find(path)


@pytest.mark.parametrize("content", ["", "[]", '{"places": []}', '{"other": {}}', "\udcff"])
def test_a_damaged_index_is_refused(first, tmp_path, content):
    (tmp_path / "ledgers" / INDEX).write_text(content, errors="surrogateescape")
    with pytest.raises(FedproofError, match="cannot be read: put back"):
        SourceIndex(tmp_path / "ledgers").find(first[0])


def test_what_cannot_be_read_is_one_sentence_without_rows(tmp_path, index):
    (tmp_path / "bad.csv.gz").write_bytes(b"\x1f\x8b secret")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 secret")
    for name in ("bad.csv.gz", "bad.parquet", "none"):
        with pytest.raises(FedproofError, match="cannot be read") as caught:
            index.find(tmp_path / name)
        assert "secret" not in str(caught.value)


def entry(number, client=""):
    return Entry("record", Spend(1.0, 0.25, number), {"round": number}, "p", client)


def free(_):
    """Allow anything."""


def steps(folder):
    (path,) = folder.glob("*.jsonl")
    return sorted(e.spend.steps for e in Ledger(path).entries())


def test_a_file_that_fits_two_sources_joins_what_they_spent(tmp_path, index):
    paths = [write(tmp_path / f"{seed}.csv", table(seed)) for seed in (1, 2)]
    old = [index.find(path).source for path in paths]
    for number, source in enumerate(old, 1):
        Ledger(tmp_path / "ledgers" / f"{source}.jsonl").spend(entry(number), free)
    both = index.find(write(tmp_path / "both.csv", table(1) + table(2))).source
    assert both == old[0]
    assert steps(tmp_path / "ledgers") == [1, 2]
    assert {index.find(path).source for path in paths} == {both}
    with pytest.raises(FedproofError, match="part of other data"):
        index.require_current(old[1])
    partitions = {e.partition for e in Ledger(tmp_path / "ledgers" / f"{both}.jsonl").entries()}
    assert partitions == {"p", f"{old[1]} p"}


def test_ledgers_by_name_are_carried_over_to_every_source(tmp_path, index):
    folder = tmp_path / "ledgers"
    names = [f"{name}-{number:012x}" for number, name in enumerate(("a", "b-c", ""), 1)]
    for number, name in enumerate(names, 1):
        Ledger(folder / f"{name}.jsonl").spend(Entry("record", Spend(1.0, 1, number), {}), free)
    source = index.find(write(tmp_path / "1.csv", table(1))).source
    assert steps(folder) == [1, 2, 3]
    other = index.find(write(tmp_path / "2.csv", table(2))).source
    for each in (source, other):
        found = Ledger(folder / f"{each}.jsonl").entries()
        assert [e.partition for e in found] == sorted(names)
    # A simulation's ledger that comes later is no silo's.
    Ledger(folder / f"{names[0]}.jsonl").spend(entry(9), free)
    assert index.find(write(tmp_path / "3.csv", table(3))).source not in (source, other)
    assert (folder / f"{names[0]}.jsonl").exists()


@pytest.mark.parametrize("crash", range(14))
def test_a_crash_while_ledgers_are_joined_loses_and_doubles_nothing(tmp_path, monkeypatch, crash):
    class Crash(BaseException):
        pass

    folder, left = tmp_path / "ledgers", crash
    paths = [write(tmp_path / f"{seed}.csv", table(seed)) for seed in (1, 2)]
    for number, path in enumerate(paths, 1):
        source = SourceIndex(folder).find(path).source
        Ledger(folder / f"{source}.jsonl").spend(entry(number), free)
    both, fsync = write(tmp_path / "both.csv", table(1) + table(2)), os.fsync

    def failing(number):
        nonlocal left
        left -= 1
        if left < 0:
            raise Crash
        fsync(number)

    monkeypatch.setattr(os, "fsync", failing)
    with contextlib.suppress(Crash):
        SourceIndex(folder).find(both)
    monkeypatch.undo()
    SourceIndex(folder).find(both)
    assert steps(folder) == [1, 2]


RACE = """
import sys
from pathlib import Path
from task.privacy.source_index import SourceIndex
index = SourceIndex(Path(sys.argv[1]))
print(index.find(Path(sys.argv[2])).source, index.secret.hex())
"""


def test_processes_that_come_first_together_agree(tmp_path):
    paths = [write(tmp_path / f"{n}.csv", shuffled(table(1))[n:]) for n in range(3)]
    running = [
        subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path / "l"), str(path)],
                         cwd=ROOT, stdout=subprocess.PIPE)
        for path in paths
    ]  # fmt: skip
    assert len({process.communicate(timeout=60)[0] for process in running}) == 1
