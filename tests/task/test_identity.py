"""Keys stay with their owner, and rosters say one thing about each client."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import FedproofError
from task.identity import Identity, bound, fingerprint, is_signed, read_roster

PARTS = st.lists(st.one_of(st.binary(max_size=9), st.text(max_size=4)), max_size=4)


def raw(parts: list[str | bytes]) -> list[bytes]:
    return [part.encode() if isinstance(part, str) else part for part in parts]


@given(PARTS, PARTS)
def test_parts_are_told_apart(one, other):
    assert (bound(*one) == bound(*other)) == (raw(one) == raw(other))


def test_keys_survive_being_written(tmp_path):
    owner, path = Identity(), tmp_path / "deep" / "er" / "key"
    owner.write(path)
    again = Identity.read(path)
    assert again.public == owner.public
    assert is_signed(owner.public, again.sign("for", b"this"), "for", b"this")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]


def test_only_the_owner_reads_a_key_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        Identity().write(tmp_path / "key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_keys_are_never_replaced(tmp_path):
    first, path = Identity(), tmp_path / "key"
    first.write(path)
    with pytest.raises(FileExistsError):
        Identity().write(path)
    assert Identity.read(path).public == first.public
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("text", [None, "", "ab", "g" * 64, "ab" * 31, "ab" * 33, "é" * 64])
def test_files_without_a_key_are_refused_and_not_shown(tmp_path, text):
    path = tmp_path / "key"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(FedproofError) as caught:
        Identity.read(path)
    assert str(caught.value) == (
        f"{path} holds no identity key: make one with `fedproof identity {path}`."
    )
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_signatures_are_of_one_owner_over_one_thing():
    a, b = Identity(), Identity()
    signature = a.sign("purpose", b"x", b"yz")
    assert len(signature) == 64 and len(a.public) == 32
    assert is_signed(a.public, signature, "purpose", b"x", b"yz")
    assert not is_signed(b.public, signature, "purpose", b"x", b"yz")
    assert not is_signed(a.public, signature, "purpose", b"xy", b"z")
    assert not is_signed(a.public, signature, "other", b"x", b"yz")
    for wrong in (b"", signature[:-1], signature + b"\0", bytes(64)):
        assert not is_signed(a.public, wrong, "purpose", b"x", b"yz")
    for key in (b"", bytes(31), bytes(33)):
        assert not is_signed(key, signature, "purpose", b"x", b"yz")


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_rosters_have_a_line_per_client(tmp_path):
    keys = [Identity().public for _ in range(3)]
    path = written(
        tmp_path / "roster",
        "# the hospitals of 2026",
        f"{keys[0].hex()} va",
        "",
        f"  {keys[1].hex().upper()}   Zürich, Kantonsspital  ",
        "#" + "ab" * 32 + " gone",
        f"{keys[2].hex()} client-2",
    )
    expected = dict(zip(["va", "Zürich, Kantonsspital", "client-2"], keys, strict=True))
    assert read_roster(path) == expected
    assert read_roster(written(tmp_path / "empty", "")) == {}


@pytest.mark.parametrize(
    "line",
    [
        "ab" * 32,
        "ab" * 32 + "   ",
        "ab" * 31 + " va",
        "ab" * 33 + " va",
        "xy" * 32 + " va",
        "va " + "ab" * 32,
        "cd" * 32 + " taken",
        "ab" * 32 + " taken",
        "ab" * 32 + "\tva",
    ],
)
def test_other_lines_are_refused_in_one_sentence(tmp_path, line):
    path = written(tmp_path / "roster", "# remark", "ab" * 32 + " taken", line)
    with pytest.raises(FedproofError) as caught:
        read_roster(path)
    assert str(caught.value) == (
        f"{path}, line 3: a roster has one line per client, its public key (64 hexadecimal digits)"
        ", a space and its name."
    )


def test_rosters_that_cannot_be_read_are_refused_in_one_sentence(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none", tmp_path, tmp_path / "binary"):
        with pytest.raises(FedproofError) as caught:
            read_roster(path)
        assert str(caught.value) == f"{path} is no roster that can be read: give its file."


def test_fingerprints_tell_rosters_apart_and_not_orders():
    keys = [Identity().public for _ in range(3)]
    roster = dict(zip("abc", keys, strict=True))
    found = fingerprint(roster)
    assert len(found) == 32 and int(found, 16) > 0
    assert found == fingerprint(dict(reversed(roster.items())))
    others = [
        {**roster, "a": keys[1]},
        {"a": keys[1], "b": keys[0], "c": keys[2]},
        {"a": keys[0], "b": keys[1]},
        {**roster, "d": keys[0]},
        {"ab": keys[0], "b": keys[1], "c": keys[2]},
        {},
    ]
    assert len({found, *map(fingerprint, others)}) == 7
