import json

import pytest

from conf.errors import FedproofError
from server_app.evidence import files


def test_lines_survive_a_torn_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert files.read_lines(path) == []
    files.append_lines(path, [{"round": 1}, {"round": 2}])
    files.append_lines(path, [{"round": 3}])
    path.write_text(path.read_text() + '{"round": 4, "lo')
    assert [row["round"] for row in files.read_lines(path)] == [1, 2, 3]
    files.keep_rounds(path, 2)
    assert [json.loads(line)["round"] for line in path.read_text().splitlines()] == [1, 2]
    files.keep_rounds(tmp_path / "none.jsonl", 2)


def test_json_is_replaced_whole(tmp_path):
    path = tmp_path / "summary.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert json.loads(path.read_text())["a"] == 1 and files.read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_versions():
    assert set(files.versions()) == {"fedproof", "flwr", "torch", "numpy", "python"}


def test_a_damaged_line_is_refused_wherever_it_is(tmp_path):
    """All that came after it was dropped in silence."""
    path = tmp_path / "metrics.jsonl"
    files.append_lines(path, [{"round": number, "loss": 0.5} for number in (1, 2, 3)])
    content = path.read_bytes()
    for damaged in (
        content.replace(b'"round": 2', b'"round": 7'),
        content.replace(b'{"round": 2', b'["round": 2'),
        content.replace(b"\n", b" ", 1),
        content.replace(b'"loss": 0.5', b'"loss": \xff.5', 1),
    ):
        path.write_bytes(damaged)
        with pytest.raises(FedproofError, match="damaged: line [12] is not what was written"):
            files.read_lines(path)


def test_a_damaged_json_file_is_refused(tmp_path):
    path = tmp_path / "summary.json"
    files.write_json(path, {"rounds": 4, "name": "a"})
    for old, new in ((b"4", b"6"), (b'"a"', b'"b"'), (b"{", b"[")):
        content = path.read_bytes()
        path.write_bytes(content.replace(old, new, 1))
        with pytest.raises(FedproofError, match=r"summary\.json is damaged"):
            files.read_json(path)
        path.write_bytes(content)
    assert files.read_json(path) == {"rounds": 4, "name": "a"}
