from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from server_app.evidence.tensorboard import Scalars, scalars

LINE = {
    "round": 3, "train": {"loss": 0.5}, "held_out": {"auroc": 0.9}, "sampled": ["a"],
    "failed": {"b": "late"}, "bytes_up": 10, "seconds": 0.25,
}  # fmt: skip


def test_tags():
    assert scalars(LINE) == {
        "train/loss": 0.5, "held_out/auroc": 0.9, "run/bytes_up": 10.0, "run/seconds": 0.25,
    }  # fmt: skip


def test_tensorboard_reads_them(tmp_path):
    writer = Scalars(tmp_path / "events")
    assert not (tmp_path / "events").exists()
    writer.add(LINE)
    writer.add(LINE | {"round": 4, "held_out": {"auroc": 0.95}})
    writer.close()
    writer.close()
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    steps = [(e.step, round(e.value, 4)) for e in events.Scalars("held_out/auroc")]
    assert steps == [(3, 0.9), (4, 0.95)]
