import json

import pytest

from server_app.evidence import files


def test_lines_survive_a_torn_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert files.read_lines(path) == []
    files.append_lines(path, [{"round": 1}, {"round": 2}])
    files.append_lines(path, [{"round": 3}])
    path.write_text(path.read_text() + '{"round": 4, "lo')
    assert [row["round"] for row in files.read_lines(path)] == [1, 2, 3]
    files.keep_rounds(path, 2)
    assert path.read_text() == '{"round": 1}\n{"round": 2}\n'
    files.keep_rounds(tmp_path / "none.jsonl", 2)


def test_json_is_replaced_whole(tmp_path):
    path = tmp_path / "summary.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1} == files.read_json(path)
    assert list(tmp_path.iterdir()) == [path]


def test_versions():
    assert set(files.versions()) == {"fedproof", "flwr", "torch", "numpy", "python"}
