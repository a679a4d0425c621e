from server_app.evidence.progress import Progress

START = {
    "event": "start", "metric": "auroc", "rounds": 2, "done": 0, "clients": 4, "train_rows": 690,
    "test_rows": 230, "parameters": 100, "refused": ["it runs other code"],
}  # fmt: skip


def line(number, **more):
    return {
        "event": "round", "round": number, "train": {"loss": 0.5}, "sampled": ["a", "b"],
        "answered": ["a"], "failed": {"b": "no answer in time"}, "bytes_down": 700,
        "bytes_up": 800, "seconds": 2.0, **more,
    }  # fmt: skip


def test_lines_where_there_is_no_terminal(tmp_path, capsys):
    with Progress(tmp_path) as show:
        show(START)
        show(line(1, held_out={"auroc": 0.0}))
        show(line(2))
        show({"event": "clients", "rows": []})
    text = capsys.readouterr().out
    assert "4 clients · 690 training rows, 230 held out · 100 parameters" in text
    assert "a node takes no part: it runs other code" in text
    assert "round 1: b: no answer in time" in text
    assert "round 1/2 · 1/2 clients · loss 0.5000 · auroc 0.0000 · 1.5 kB · ETA 2 s" in text
    assert "round 2/2 · 1/2 clients · loss 0.5000 · 3.0 kB · ETA 0 s" in text
