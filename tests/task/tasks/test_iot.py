import os
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.data import hapt
from conf.errors import FedproofError
from conf.schema import Scaling, TaskConfig
from task.tasks import _uci
from task.tasks.iot import EMBEDDED, HELD_OUT, LEVELS, Task

REPOSITORY = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("FEDPROOF_DATA", REPOSITORY.parent / "shared" / "data"))
FULL = DATA / "hapt" / "hapt_windows.npz"
needs_full = pytest.mark.skipif(not FULL.is_file(), reason="HAPT is not at FEDPROOF_DATA")


def task(split="subjects", download=False, scaling=Scaling.none):
    return Task(TaskConfig("iot", scaling=scaling, options={"split": split, "download": download}))


def readings(count, columns=3, seed=0):
    return np.random.default_rng(seed).normal(size=(count, columns)).round(4)


def raw_data(folder, labels):
    """Write HAPT's layout: 600 readings of each experiment in `labels`."""
    folder.mkdir(parents=True)
    np.savetxt(folder / "labels.txt", labels, fmt="%d")
    for experiment, user in {tuple(row[:2]) for row in labels}:
        for seed, sensor in enumerate(("acc", "gyro")):
            file = folder / f"{sensor}_exp{experiment:02d}_user{user:02d}.txt"
            np.savetxt(file, readings(600, seed=100 * experiment + seed), fmt="%.4f")


LABELS = [[1, 1, 5, 11, 266], [1, 1, 7, 267, 500], [2, 2, 1, 1, 128], [2, 2, 6, 200, 326]]


def har(folder, counts):
    """Write HAR's layout: so many windows in each part."""
    for part, count in counts.items():
        signals = folder / part / "Inertial Signals"
        signals.mkdir(parents=True)
        for seed, name in enumerate(_uci.SIGNALS):
            np.savetxt(signals / f"{name}_{part}.txt", readings(count, 128, seed), fmt="%.7e")
        np.savetxt(folder / part / f"y_{part}.txt", np.arange(count) % 6 + 1, fmt="%d")
        subject = np.full(count, 1 if part == "train" else 24)
        np.savetxt(folder / part / f"subject_{part}.txt", subject, fmt="%d")


def test_embedded_sample_has_everyone_and_everything():
    pool = task().load(None)
    assert pool.rows.x.shape == (1440, 128, 6) and pool.rows.x.dtype == torch.float32
    assert sorted(set(pool.clients)) == [f"subject-{k:02d}" for k in range(1, 31)]
    assert np.bincount(pool.labels).tolist() == [240] * 6
    held_out = {c for c, t in zip(pool.clients, pool.test, strict=True) if t}
    training = {c for c, t in zip(pool.clients, pool.test, strict=True) if not t}
    assert held_out == {f"subject-{k:02d}" for k in HELD_OUT} and not held_out & training
    # At rest the accelerometer shows gravity: one g.
    still = pool.rows.x[torch.from_numpy(pool.labels >= 3)]
    assert abs(float(still[:, :, :3].norm(dim=-1).mean()) - 1) < 0.05


@needs_full
def test_embedded_sample_is_derived_from_the_full_data(tmp_path, monkeypatch):
    monkeypatch.setattr(hapt, "EMBEDDED", tmp_path / "hapt.jsonl")
    hapt.main(FULL)
    assert (tmp_path / "hapt.jsonl").read_bytes() == EMBEDDED.read_bytes()
    full, sample = task().load(FULL), task().load(None)
    kept = hapt.sample(full.labels, np.array([int(c[-2:]) for c in full.clients]))
    halved = full.rows.x[kept].reshape(-1, 64, 2, 6).mean(2)
    error = (sample.rows.x[:, ::2] - halved).abs().amax((0, 1)).numpy()
    assert (error[:3] <= 0.51 / LEVELS[:3]).all()
    assert np.array_equal(sample.labels, full.labels[kept])
    assert sample.clients == [full.clients[k] for k in kept]


@needs_full
def test_full_data():
    pool = task().load(FULL)
    assert len(pool.rows) == 10_017 and len(set(pool.clients)) == 30
    assert pool.test.sum() == 2874


def test_rows_split_leaves_holding_out_to_the_clients():
    assert task(split="rows").load(None).test is None


def test_federated_scaling_is_per_channel():
    iot = task(scaling=Scaling.federated)
    pool = iot.load(None)
    halves = [pool.rows.take(np.arange(0, 700)), pool.rows.take(np.arange(700, 1440))]
    shared = iot.agree([iot.describe(half) for half in halves])
    assert len(shared["mean"]) == 6
    x = iot.prepare(pool.rows, halves[0], shared).train.x
    torch.testing.assert_close(x.mean((0, 1)), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(x.std((0, 1)), torch.ones(6), atol=1e-3, rtol=0)


def test_people_who_only_test_are_scaled_by_their_own_rows():
    iot = task(scaling=Scaling.local)
    pool = iot.load(None)
    whole, none = pool.rows.take(np.arange(0, 100)), pool.rows.take(np.arange(0))
    held_out = iot.prepare(none, whole, {}).test.x
    torch.testing.assert_close(held_out, iot.prepare(whole, whole, {}).train.x)
    torch.testing.assert_close(held_out.std((0, 1)), torch.ones(6), atol=1e-3, rtol=0)


@pytest.mark.parametrize("inside", ["RawData", "."])
def test_raw_recordings_of_hapt(tmp_path, inside):
    raw_data(tmp_path / "root" / inside, LABELS)
    pool = task().load(tmp_path / "root")
    # 256 readings: three windows; a transition: none; 128 readings: one; 127: none.
    assert pool.labels.tolist() == [4, 4, 4, 0]
    assert pool.clients == ["subject-01"] * 3 + ["subject-02"]
    assert pool.test.tolist() == [False] * 3 + [True]
    first = np.hstack([readings(600, seed=100), readings(600, seed=101)])
    for window, start in enumerate((10, 74, 138)):
        np.testing.assert_allclose(pool.rows.x[window], first[start : start + 128], rtol=1e-6)
    last = np.hstack([readings(600, seed=200), readings(600, seed=201)])
    np.testing.assert_allclose(pool.rows.x[3], last[:128], rtol=1e-6)


@pytest.mark.parametrize("inside", ["UCI HAR Dataset", "."])
def test_windows_of_har(tmp_path, inside):
    har(tmp_path / inside, {"train": 7, "test": 3})
    pool = task().load(tmp_path)
    assert pool.labels.tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 1, 2]
    assert pool.test.tolist() == [False] * 7 + [True] * 3
    assert pool.clients == ["subject-01"] * 7 + ["subject-24"] * 3
    for channel in range(6):
        expected = readings(7, 128, seed=channel)
        np.testing.assert_allclose(pool.rows.x[:7, :, channel], expected, rtol=1e-6)


@pytest.fixture
def uci(tmp_path, monkeypatch):
    """Stand in for UCI: an archive that tests write is what the official address serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        monkeypatch.setattr(_uci, "HAPT_URL", f"http://127.0.0.1:{http.server_port}/hapt.zip")
        yield folder / "hapt.zip"
        http.shutdown()


def zipped(archive, folder, prefix):
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("README.txt", "about")
        for file in sorted(folder.iterdir()):
            content.write(file, f"{prefix}{file.name}")


@pytest.mark.parametrize("prefix", ["RawData/", "HAPT Data Set/RawData/", "../../RawData/"])
def test_download(tmp_path, uci, prefix):
    raw_data(tmp_path / "made", LABELS)
    zipped(uci, tmp_path / "made", prefix)
    root = tmp_path / "a" / "root"
    pool = task(download=True).load(root)
    assert len(pool.rows) == 4
    assert sorted(p.name for p in root.iterdir()) == [".download.lock", "RawData"]
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["root"]
    uci.unlink()
    assert len(task(download=True).load(root).rows) == 4


def test_corrupted_downloads(tmp_path, uci):
    raw_data(tmp_path / "made", LABELS)
    zipped(uci, tmp_path / "made", "RawData/")
    whole = uci.read_bytes()
    (tmp_path / "made" / "gyro_exp02_user02.txt").unlink()
    zipped(uci, tmp_path / "made", "RawData/")
    incomplete = uci.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for content in (whole[:-100], bytes(flipped), incomplete, b"<html>busy</html>", None):
        uci.unlink(missing_ok=True)
        if content is not None:
            uci.write_bytes(content)
        with pytest.raises(FedproofError, match="the download of HAPT from") as raised:
            task(download=True).load(tmp_path / "root")
        assert "\n" not in str(raised.value)
        assert [p.name for p in (tmp_path / "root").iterdir()] == [".download.lock"]


def test_missing_and_unknown(tmp_path):
    (tmp_path / "empty" / "train").mkdir(parents=True)
    cases = [
        (task(split="people"), None, "task.split must be one of subjects, rows, got people"),
        (task(download=True), None, "task.download needs task.path"),
        (task(), tmp_path, "no activity data at"),
        (task(), tmp_path / "none", "no activity data at"),
        (task(), tmp_path / "none.npz", "does not exist"),
        (task(), tmp_path / "empty", "total_acc_x_train.txt is missing"),
    ]
    for iot, path, message in cases:
        with pytest.raises(FedproofError, match=message):
            iot.load(path)


X = np.zeros((2, 128, 6), dtype=np.float16)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X, "label": np.zeros(2, int)}, "needs the arrays x, y, subject and has x, label"),
        ({"x": X[:, :64], "y": [0, 1], "subject": [1, 2]}, r"x must be numbers of shape \(n, 128"),
        ({"x": X, "y": [0, 6], "subject": [1, 2]}, "whole numbers from 0 to 5"),
        ({"x": X, "y": [0, 1], "subject": ["a", "b"]}, "subject must hold one whole number"),
        ({"x": X, "y": [0, 1], "subject": [1]}, "same number of rows"),
        ({"x": X + np.nan, "y": [0, 1], "subject": [1, 2]}, "x must be finite"),
    ],
)
def test_wrong_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(FedproofError, match=message):
        task().load(tmp_path / "w.npz")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[1, 1, 5, 1, 601]], "readings 1 to 601 of experiment 1, activity 5, do not exist"),
        ([[1, 1, 0, 1, 300]], "activity 0, do not exist"),
        ([[1, 1, 5, 1, 127]], "no activity of 128 readings"),
        ([[1, 1, 5, 1]], "labels.txt is damaged: it needs rows of 5 numbers"),
    ],
)
def test_wrong_labels(tmp_path, labels, message):
    raw_data(tmp_path / "RawData", labels)
    with pytest.raises(FedproofError, match=message):
        task().load(tmp_path)


def test_damaged_recordings(tmp_path):
    raw_data(tmp_path / "RawData", LABELS)
    file = tmp_path / "RawData" / "acc_exp01_user01.txt"
    for content, message in (
        ("1 2 3\n1 2\n", "is damaged: it needs rows of 3 numbers"),
        ("1 2 x\n", "is damaged"),
        ("", "is damaged"),
        ("1 2 3\n", "differ in length"),
    ):
        file.write_text(content)
        with pytest.raises(FedproofError, match=message):
            task().load(tmp_path)


def test_damaged_har(tmp_path):
    har(tmp_path, {"train": 3})
    labels = tmp_path / "train" / "y_train.txt"
    for content, message in (
        ("1\n2\n", "differ in their number"),
        ("1\n2\n7\n", "activities 1 to 6"),
    ):
        labels.write_text(content)
        with pytest.raises(FedproofError, match=message):
            task().load(tmp_path)
