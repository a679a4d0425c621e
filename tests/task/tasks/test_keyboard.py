import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.compose import compose
from conf.errors import FedproofError
from conf.schema import TaskConfig
from task.objectives import NextToken
from task.source import DataSource
from task.tasks.keyboard import ALPHABET, EMBEDDED, SYMBOLS, Task, encode, sequences


def keyboard(length=80, test_fraction=0.2):
    return Task(TaskConfig("keyboard", test_fraction=test_fraction, options={"length": length}))


def decode(symbols):
    return "".join(ALPHABET[s - 1] if s > 0 else "?" for s in symbols)


def test_embedded_roles():
    pool = keyboard().load(None)
    assert len(set(pool.clients)) == 128 and "hamlet.ham" in pool.clients
    texts = dict(map(json.loads, EMBEDDED.read_text().splitlines()))
    assert 1_000_000 < sum(map(len, texts.values())) < 1_600_000
    assert EMBEDDED.stat().st_size < 2_000_000
    rows = [i for i, name in enumerate(pool.clients) if name == "macbeth.macbeth"]
    x, y = pool.rows.x[rows].numpy(), pool.rows.y[rows].numpy()
    assert decode(x.ravel())[:30] == texts["macbeth.macbeth"][:30]
    assert decode(y.ravel())[:29] == texts["macbeth.macbeth"][1:30]
    held_out = pool.test[rows]
    # The last fifth, after all of the training part.
    assert held_out.mean() == pytest.approx(0.2, abs=0.01)
    assert (np.diff(held_out.astype(int)) >= 0).all()


@given(st.text(max_size=200), st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_sequences_hold_every_next_character_once(text, length):
    x, y = sequences(text, length)
    assert x.shape == y.shape and x.shape[1] == length
    targets = y[y != NextToken.IGNORED]
    assert targets.tolist() == encode(text)[1:].tolist()
    assert x.ravel()[: len(targets)].tolist() == encode(text)[: len(targets)].tolist()
    assert not len(x) or (y[-1] != NextToken.IGNORED).any()


def test_alphabet():
    assert encode("A\n~é€😀").tolist() == [
        1 + ALPHABET.index("A"), 1, SYMBOLS - 1, 0, 0, 0,
    ]  # fmt: skip
    assert encode("\x00\x1f\x7f").tolist() == [0, 0, 0]
    assert SYMBOLS == 97


def test_rows_become_wide_only_when_prepared():
    task = keyboard(length=10)
    pool = task.load(None)
    assert pool.rows.x.dtype == torch.int8
    rows = pool.rows.take(np.array([0, 1]))
    data = task.prepare(rows, rows, {})
    assert data.train.x.dtype == data.train.y.dtype == torch.int64
    assert task.spec({}).vocabulary == task.spec({}).outputs == SYMBOLS
    assert task.spec({}).input_shape == (10,)
    assert task.describe(rows) == {} and task.agree([{}, {}]) == {}


def test_own_texts(tmp_path):
    (tmp_path / "ann.txt").write_text("hello world")
    (tmp_path / "bob.txt").write_text("x")
    (tmp_path / "cy.txt").write_text("bye")
    pool = keyboard(length=4).load(tmp_path)
    assert pool.clients == ["ann"] * 3 + ["cy"]
    assert keyboard(length=4).load(tmp_path / "ann.txt").clients == ["ann"] * 3
    lines = tmp_path / "chat.jsonl"
    lines.write_text('["zoe", "hi there"]\n["amy", "so"]\n')
    assert keyboard(length=7).load(lines).clients == ["zoe", "amy"]


def leaf(file, users):
    file.parent.mkdir(parents=True, exist_ok=True)
    data = {name: {"x": x, "y": y} for name, (x, y) in users.items()}
    counts = [len(d["y"]) for d in data.values()]
    file.write_text(json.dumps({"users": list(data), "num_samples": counts, "user_data": data}))


def test_leafs_windows_predict_the_next_character_only(tmp_path):
    windows = [("ab" * 40)[i : i + 80].ljust(80, "c") for i in range(3)]
    leaf(tmp_path / "train" / "a.json", {"HAMLET": (windows, ["x", "y", "z"])})
    leaf(tmp_path / "test" / "b.json", {"HAMLET": (windows[:1], ["é"])})
    pool = keyboard().load(tmp_path)
    assert pool.clients == ["HAMLET"] * 4
    assert pool.test.tolist() == [False, False, False, True]
    assert decode(pool.rows.x[1].numpy()) == windows[1]
    assert (pool.rows.y[:, :-1] == NextToken.IGNORED).all()
    assert decode(pool.rows.y[:, -1].numpy()) == "xyz?"
    one = keyboard().load(tmp_path / "train" / "a.json")
    assert one.test is None and len(one.rows) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.txt", None, "there is no .*no.txt"),
        ("one.txt", "x", "nothing to predict"),
        ("latin.txt", b"\xff\xfe", "must be a text in UTF-8"),
        ("bad.jsonl", "{", 'each line must be \\["name", "text"\\]'),
        ("bad.jsonl", '["a", 3]', 'each line must be \\["name", "text"\\]'),
        ("bad.json", "{}", "is not LEAF's"),
        ("short.json", {"u": (["abc"], ["d"])}, "needs x of 80 characters"),
        ("long.json", {"u": (["a" * 80], ["dd"])}, "needs y of one character"),
        ("odd.json", {"u": (["a" * 80], ["d", "e"])}, "of one length"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    file = tmp_path / name
    if isinstance(content, dict):
        leaf(file, content)
    elif content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FedproofError, match=message) as caught:
        keyboard().load(file)
    assert "\n" not in str(caught.value)


def test_length_must_be_positive():
    with pytest.raises(FedproofError, match="task.length must be at least 1"):
        keyboard(length=0).load(None)


def test_leafs_windows_overlap_and_are_no_records(tmp_path):
    text = "".join(chr(97 + i % 26) for i in range(90))
    windows = [text[i : i + 80] for i in range(3)]
    leaf(tmp_path / "a.json", {"HAMLET": (windows, ["x", "y", "z"])})
    told = ("task=keyboard", "privacy=record_dp", "privacy.sigma=1")
    with pytest.raises(FedproofError, match="a character is in 80 of LEAF's windows: choose"):
        DataSource(compose(told), tmp_path).pool  # noqa: B018
    other = ("task=keyboard", "privacy=client_dp", "privacy.sigma=1")
    assert len(DataSource(compose(other), tmp_path).pool.rows) == 3
    # Texts that are cut into sequences one after the other are.
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "HAMLET.txt").write_text(text)
    assert len(DataSource(compose(told), tmp_path / "b").pool.rows) == 2
