"""The ledger: durable, chained, exclusive, and never short of what was released."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from conf.errors import FedproofError
from task import hash_chain as module
from task.hash_chain import DamagedChainError
from task.privacy.accounting import Spend
from task.privacy.ledger import Entry, Head, Ledger
from tests.flower import ROOT


def entry(number=1):
    return Entry("record", Spend(1.0, 0.25, number), {"run": "r", "round": number})


def free(_):
    """Allow anything."""


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "silo" / "ledger.jsonl")


def test_what_is_written_is_read(ledger):
    assert ledger.entries() == []
    for number in range(1, 6):
        ledger.spend(entry(number), free)
        assert ledger.entries() == [entry(n) for n in range(1, number + 1)]
    assert Ledger(ledger.path).entries() == ledger.entries()
    assert ledger.path.stat().st_mode & 0o077 == 0


def test_what_is_too_much_is_not_written(ledger):
    def at_most_three(entries):
        if sum(e.spend.steps for e in entries) > 3:
            raise FedproofError("too much")

    ledger.spend(entry(2), at_most_three)
    with pytest.raises(FedproofError, match="too much"):
        ledger.spend(entry(2), at_most_three)
    ledger.spend(entry(1), at_most_three)
    assert [e.spend.steps for e in ledger.entries()] == [2, 1]


@pytest.mark.parametrize("line", [0, 1, 2])
@pytest.mark.parametrize("change", ["edit", "drop", "swap"])
def test_an_edit_shows(ledger, line, change):
    for number in (1, 2, 3):
        ledger.spend(entry(number), free)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    if change == "edit":
        lines[line] = lines[line].replace(b'"sigma": 1.0', b'"sigma": 9.0')
    elif change == "drop":
        del lines[line]
    else:
        lines[line], lines[line - 1] = lines[line - 1], lines[line]
    ledger.path.write_bytes(b"".join(lines))
    for use in (ledger.entries, lambda: ledger.spend(entry(4), free)):
        with pytest.raises(DamagedChainError, match="was edited"):
            use()
    assert ledger.path.read_bytes() == b"".join(lines)


def test_a_forged_end_and_a_missing_head_show(ledger):
    other = Ledger(ledger.path.with_name("other.jsonl"))
    for number in (1, 2, 3):
        ledger.spend(entry(number), free)
        other.spend(entry(number + 5), free)
    kept = ledger.path.read_bytes()
    ledger.path.write_bytes(other.path.read_bytes())
    with pytest.raises(DamagedChainError, match="does not end as its head says"):
        ledger.entries()
    ledger.path.write_bytes(kept)
    head = ledger.path.with_name(ledger.path.name + ".head")
    for content in (None, "rubbish", "7"):
        head.unlink() if content is None else head.write_text(content)
        with pytest.raises(DamagedChainError, match="edited"):
            ledger.entries()


def test_a_torn_line_is_refused_until_it_is_cut_off(ledger):
    ledger.spend(entry(1), free)
    with ledger.path.open("ab") as file:
        file.write(b'{"number": 2, "uni')
    for use in (ledger.entries, lambda: ledger.spend(entry(2), free)):
        with pytest.raises(DamagedChainError, match=r"torn line.*--repair"):
            use()
    assert ledger.repair() == 18
    ledger.spend(entry(2), free)
    assert ledger.entries() == [entry(1), entry(2)]


def test_ten_thousand_crashes_lose_nothing_and_count_nothing_twice(tmp_path, monkeypatch):
    """A crash at any byte of a line, or between a line and its head, over and over."""
    rng = random.Random(7)
    monkeypatch.setattr(module.os, "fsync", lambda _: None)

    class Crash(BaseException):
        pass

    write = os.write
    released: list[int] = []
    ledger, attempt, plan = Ledger(tmp_path / "0"), 0, {"bytes": None, "head": False}

    def torn_write(file, line):
        if plan["bytes"] is None:
            return write(file, line)
        write(file, line[: plan["bytes"]])
        raise Crash

    def crash_before_head(path):
        if plan["head"]:
            raise Crash
        return atomic(path)

    atomic = module.atomic
    monkeypatch.setattr(module.os, "write", torn_write)
    monkeypatch.setattr(module, "atomic", crash_before_head)
    for attempt in range(1, 10_001):
        if attempt % 20 == 0:
            # A fresh ledger now and then, for each attempt reads all of it.
            ledger, released = Ledger(tmp_path / str(attempt)), []
        plan["bytes"] = rng.randrange(200) if rng.random() < 0.4 else None
        plan["head"] = rng.random() < 0.3
        before = released.copy()
        try:
            ledger.spend(entry(attempt), free)
            released.append(attempt)
        except Crash:
            pass
        plan["bytes"], plan["head"] = None, False
        try:
            found = [e.spend.steps for e in ledger.entries()]
        except DamagedChainError as error:
            assert "torn line" in str(error)
            ledger.repair()
            found = [e.spend.steps for e in ledger.entries()]
        # At most the one that was being written may count beyond what was released.
        assert found in (released, [*before, attempt])
        released = found


HAMMER = """
import sys
from pathlib import Path
from task.privacy.ledger import Entry, Ledger
from task.privacy.accounting import Spend
from conf.errors import FedproofError

def few(entries):
    if len(entries) > 30:
        raise FedproofError("enough")

done = 0
for _ in range(20):
    try:
        Ledger(Path(sys.argv[1])).spend(Entry("record", Spend(1.0, 0.1, 1), {}), few)
        done += 1
    except FedproofError as error:
        assert "enough" in str(error), error
print(done)
"""


def test_processes_take_turns(tmp_path):
    command = [sys.executable, "-c", HAMMER, str(tmp_path / "ledger")]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(3)]
    done = sum(int(process.communicate(timeout=120)[0]) for process in running)
    assert done == 30 == len(Ledger(tmp_path / "ledger").entries())


def test_a_ledger_in_use_is_waited_for_and_then_refused(ledger, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)

    def meanwhile(_):
        with pytest.raises(FedproofError, match="in use by another process"):
            Ledger(ledger.path).spend(entry(2), free)

    ledger.spend(entry(1), meanwhile)
    assert ledger.entries() == [entry(1)]


def test_a_full_disk_releases_nothing(ledger, monkeypatch):
    ledger.spend(entry(1), free)
    write = os.write
    monkeypatch.setattr(module.os, "write", lambda file, line: write(file, line[:10]))
    with pytest.raises(FedproofError, match=r"No space left on device\): nothing was released"):
        ledger.spend(entry(2), free)
    monkeypatch.undo()
    assert ledger.entries() == [entry(1)]


def test_a_ledger_that_cannot_be_written(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(FedproofError, match=r"cannot be written \(.*\): nothing was released"):
        Ledger(blocker / "ledger").spend(entry(), free)


class Disk:
    """What of a folder would be there after a power cut: names and contents that were synced."""

    def __init__(self, root, monkeypatch):
        self.root, self._sync = root, os.fsync
        self.names: dict[int, dict[str, int]] = {root.stat().st_ino: {}}
        self.contents: dict[int, bytes] = {}
        self.points: list[dict] = []
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, number):
        self._sync(number)
        path, known = Path(f"/proc/self/fd/{number}"), os.fstat(number).st_ino
        if path.is_dir():
            inside = {each.name: each.stat().st_ino for each in path.iterdir()}
            self.names[known] = inside
            self.names |= {inside[e.name]: {} for e in path.iterdir() if e.is_dir()} | self.names
        else:
            self.contents[known] = path.read_bytes()
        self.points.append({})
        self._list(self.root.stat().st_ino, "", self.points[-1])

    def _list(self, folder, prefix, into):
        for name, number in self.names.get(folder, {}).items():
            if number in self.names:
                self._list(number, f"{prefix}{name}/", into)
            else:
                into[prefix + name] = self.contents.get(number, b"")

    def after_cut(self, point, folder):
        for name, content in self.points[point].items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder


def test_a_power_cut_at_any_moment_forgets_nothing_that_was_released(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk", monkeypatch)
    made = Ledger(tmp_path / "disk" / "new" / "folder" / "ledger.jsonl")
    released = []
    for number in (1, 2, 3):
        made.spend(entry(number), free)
        released.append(len(disk.points) - 1)
    for point in range(len(disk.points)):
        done = sum(point >= last for last in released)
        folder = disk.after_cut(point, tmp_path / str(point))
        found = Ledger(folder / "new" / "folder" / "ledger.jsonl").entries()
        assert found in ([entry(n) for n in range(1, done + k)] for k in (1, 2)), point


def test_an_older_ledger_put_back_shows_to_who_knows_its_head(ledger, tmp_path):
    secret, kept = bytes(32), tmp_path / "kept.jsonl"
    heads = [ledger.head()]
    for number in (1, 2, 3):
        ledger.spend(entry(number), free)
        heads.append(ledger.head())
        if number == 2:
            ledger.copy_to(kept)
    older = Ledger(kept)
    assert older.entries() == ledger.entries()[:2]
    for head in heads:
        ledger.require_from(head, "the log")
        ledger.require_from(head.sealed(secret), "the log", secret)
    for head in heads[:3]:
        older.require_from(head, "the log")
    for told, key in ((heads[3], None), (heads[3].sealed(secret), secret)):
        with pytest.raises(FedproofError, match=r"does not go on from the entry 3 that the log"):
            older.require_from(told, "the log", key)
    # Of the same length, but with another history.
    older.spend(entry(7), free)
    with pytest.raises(FedproofError, match="put back the newest"):
        older.require_from(heads[3], "the log")


def test_a_head_that_others_keep_tells_nothing_of_what_was_written(ledger):
    ledger.spend(entry(1), free)
    head = ledger.head()
    told = [head.sealed(secret) for secret in (bytes(32), b"k" * 32)]
    assert len({head.digest, *(each.digest for each in told)}) == 3
    assert Head.read(str(told[0])) == told[0]
    for text in ("", "1", "x:" + "0" * 64, "1:" + "0" * 63, "1:" + "0" * 64 + "\n"):
        with pytest.raises(FedproofError, match="is no head of a ledger"):
            Head.read(text)
