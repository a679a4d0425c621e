import base64

from server_app.engines.remote import Mirror
from server_app.evidence import files


def piece(name, content, index, count):
    data = base64.b85encode(content).decode()
    return {"event": "file", "name": name, "piece": index, "pieces": count, "data": data}


def test_a_run_elsewhere_is_mirrored(tmp_path):
    mirror = Mirror(tmp_path)
    files.append_lines(tmp_path / files.METRICS, [{"round": 1}, {"round": 2}])
    mirror({"event": "start", "done": 1})
    mirror({"event": "round", "round": 2, "train": {"loss": 0.5}})
    mirror({"event": "clients", "rows": [{"round": 2, "client": "a"}]})
    mirror(piece(files.MODEL, b"\x00one", 0, 2))
    assert not (tmp_path / files.MODEL).exists()
    mirror(piece(files.MODEL, b"two\xff", 1, 2))
    mirror({"event": "summary", "rounds": 2})
    assert (tmp_path / files.MODEL).read_bytes() == b"\x00onetwo\xff"
    assert [row["round"] for row in files.read_lines(tmp_path / files.METRICS)] == [1, 2]
    assert files.read_lines(tmp_path / files.CLIENTS) == [{"round": 2, "client": "a"}]
    assert files.read_json(tmp_path / files.SUMMARY) == {"rounds": 2}


def test_a_server_cannot_choose_where_files_go(tmp_path):
    mirror = Mirror(tmp_path / "run")
    (tmp_path / "run").mkdir()
    mirror(piece("../evil", b"x", 0, 1))
    mirror(piece("checkpoint.safetensors", b"x", 0, 1))
    assert list((tmp_path / "run").iterdir()) == [] and not (tmp_path / "evil").exists()


def test_a_lost_piece_writes_nothing(tmp_path):
    mirror = Mirror(tmp_path)
    mirror(piece(files.MODEL, b"one", 0, 3))
    mirror(piece(files.MODEL, b"three", 2, 3))
    assert not (tmp_path / files.MODEL).exists()
