import gzip
import hashlib
import json
import os
import pickle
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from sklearn.datasets import load_digits

from conf.errors import FedproofError
from conf.schema import TaskConfig
from task.base import Examples
from task.tasks.vision import DATASETS, Task

REPOSITORY = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("FEDPROOF_DATA", REPOSITORY.parent / "shared" / "data"))
FASHION = DATA / "FashionMNIST" / "raw"
FEMNIST = DATA / "femnist" / "femnist_100writers.npz"


def task(dataset=None, download=False):
    return Task(TaskConfig("vision", dataset=dataset, options={"download": download}))


def tensors(vision, pool):
    rows = np.arange(len(pool.rows))
    return vision.prepare(pool.rows.take(rows), pool.rows.take(rows[:1]), {}).train


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def images(count, side=28, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side), dtype=np.uint8)


def leaf(path, users):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {
        user: {"x": (x.reshape(len(x), -1) / 255).tolist(), "y": y}
        for user, (x, y) in users.items()
    }
    path.write_text(json.dumps({"users": list(users), "num_samples": [], "user_data": data}))


def test_digits_are_those_of_scikit_learn():
    vision = task()
    pool = vision.load(None)
    examples = tensors(vision, pool)
    known = load_digits()
    assert pool.clients is None and pool.test is None
    assert examples.x.shape == (1797, 1, 8, 8) and examples.x.dtype == torch.float32
    np.testing.assert_array_equal(examples.y, known.target)
    np.testing.assert_allclose(
        examples.x[:, 0], (known.images / 16 - 0.3053) / 0.3760, rtol=1e-5, atol=1e-6
    )
    # Published constants: to four digits the statistics of the pixels.
    assert abs(float(examples.x.mean())) < 1e-3 and abs(float(examples.x.std()) - 1) < 1e-3


@pytest.mark.parametrize("name", list(DATASETS))
def test_spec_and_objective_need_no_rows(name):
    spec = task(name).spec({})
    assert len(DATASETS[name].mean) == len(DATASETS[name].std) == spec.input_shape[0]
    outputs = torch.zeros(2, spec.outputs)
    assert task(name).objective({}).loss(outputs, torch.tensor([0, spec.outputs - 1])).shape == (2,)


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_idx_files(tmp_path, name, folder):
    raw = tmp_path / folder / "raw"
    train, test = images(5), images(3, seed=1)
    write_idx(raw / "train-images-idx3-ubyte", train)
    write_idx(raw / "train-labels-idx1-ubyte", np.arange(5))
    write_idx(raw / "t10k-images-idx3-ubyte", test)
    write_idx(raw / "t10k-labels-idx1-ubyte", np.arange(3))
    pool = task(name).load(tmp_path)
    np.testing.assert_array_equal(pool.rows.x[:, 0], np.concatenate([train, test]))
    assert pool.labels.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert pool.test.tolist() == [False] * 5 + [True] * 3


def test_emnist_is_turned_upright(tmp_path):
    raw = tmp_path / "EMNIST" / "raw"
    stored = images(4)
    for part in ("train", "test"):
        write_idx(raw / f"emnist-balanced-{part}-images-idx3-ubyte", stored)
        write_idx(raw / f"emnist-balanced-{part}-labels-idx1-ubyte", np.array([0, 9, 10, 46]))
    pool = task("emnist").load(tmp_path)
    np.testing.assert_array_equal(pool.rows.x[:4, 0], stored.transpose(0, 2, 1))
    assert pool.labels.tolist() == [0, 9, 10, 46] * 2


def test_cifar10(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    files = {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [3, 9]}))
        files[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    kind = torchvision.datasets.CIFAR10
    meta = hashlib.md5((folder / "batches.meta").read_bytes()).hexdigest()
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": meta})
    monkeypatch.setattr(kind, "train_list", [[n, m] for n, m in files.items() if "data" in n])
    monkeypatch.setattr(kind, "test_list", [["test_batch", files["test_batch"]]])
    vision = task("cifar10")
    pool = vision.load(tmp_path)
    assert pool.test.sum() == 2 and len(pool.rows) == 12
    np.testing.assert_array_equal(pool.rows.x[0], pixels[0].reshape(3, 32, 32))
    expected = (pixels[0, 1024:2048] / 255 - 0.4822) / 0.2435
    np.testing.assert_allclose(
        tensors(vision, pool).x[0, 1].reshape(-1), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.skipif(not FASHION.is_dir(), reason="Fashion-MNIST is not at FEDPROOF_DATA")
def test_fashion_mnist_unpacks_in_place(tmp_path, monkeypatch):
    raw = tmp_path / "FashionMNIST" / "raw"
    shutil.copytree(FASHION, raw, copy_function=shutil.copyfile)
    # The same files as at Zalando, but compressed anew, so other checksums than torchvision knows.
    sums = [(f.name, hashlib.md5(f.read_bytes()).hexdigest()) for f in sorted(raw.glob("*.gz"))]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", sums)
    vision = task("fashion_mnist", download=True)
    pool = vision.load(tmp_path)
    assert pool.rows.x.shape == (70_000, 1, 28, 28) and pool.test.sum() == 10_000
    assert np.bincount(pool.labels).tolist() == [7000] * 10
    sample = pool.rows.take(np.flatnonzero(~pool.test)[:20_000])
    x = vision.prepare(sample, sample.take(np.arange(1)), {}).train.x
    assert abs(float(x.mean())) < 0.01 and abs(float(x.std()) - 1) < 0.01


@pytest.mark.skipif(not FEMNIST.is_file(), reason="FEMNIST is not at FEDPROOF_DATA")
def test_femnist_by_writer():
    pool = task("femnist").load(FEMNIST)
    assert len(set(pool.clients)) == 105 and "f3152_47" in pool.clients
    assert pool.labels.max() == 61 and 0.09 < pool.test.mean() < 0.12


def test_leaf_with_its_own_split(tmp_path):
    x = images(6)
    leaf(tmp_path / "train" / "a.json", {"w0": (x[:2], [0, 61]), "w1": (x[2:4], [5, 6])})
    leaf(tmp_path / "test" / "a.json", {"w0": (x[4:5], [7]), "w1": (x[5:], [8])})
    pool = task("femnist").load(tmp_path)
    np.testing.assert_array_equal(pool.rows.x[:, 0], x)
    assert pool.clients == ["w0", "w0", "w1", "w1", "w0", "w1"]
    assert pool.test.tolist() == [False] * 4 + [True] * 2
    assert pool.labels.tolist() == [0, 61, 5, 6, 7, 8]


@pytest.mark.parametrize("place", ["all_data/all_data_0.json", "all_data_0.json"])
def test_leaf_without_split(tmp_path, place):
    leaf(tmp_path / place, {"w0": (images(2), [0, 61])})
    for path in (tmp_path, tmp_path / place):
        pool = task("femnist").load(path)
        assert pool.test is None and pool.clients == ["w0", "w0"]


def test_own_images_for_any_dataset(tmp_path):
    file = tmp_path / "silo.npz"
    np.savez(file, x=images(3, side=8) % 17, y=np.array([1, 2, 3]))
    pool = task().load(file)
    assert pool.rows.x.shape == (3, 1, 8, 8) and pool.clients is None and pool.test is None


def test_scaling_works_on_normalised_pixels():
    vision = Task(TaskConfig("vision", options={"download": False}))
    pool = vision.load(None)
    assert vision.describe(pool.rows) == {} and vision.agree([{}]) == {}
    data = vision.prepare(pool.rows, Examples(pool.rows.x[:0], pool.rows.y[:0]), {})
    assert len(data.test) == 0 and data.test.x.dtype == torch.float32


def test_missing_and_unknown(tmp_path):
    cases = [
        (
            task("letters"),
            None,
            "no data set 'letters' in task vision: choose one of digits, mnist",
        ),
        (task("mnist"), None, "task.dataset=mnist needs task.path"),
        (task("mnist"), tmp_path, "cannot read the files of mnist.*task.download=true"),
        (task("cifar10"), tmp_path, "cannot read the files of cifar10"),
        (task("femnist"), tmp_path, "no .json files at"),
        (task("femnist"), tmp_path / "none.npz", "does not exist: task.path must name an .npz"),
        (task(), tmp_path, "digits of your own must be an .npz file"),
    ]
    for vision, path, message in cases:
        with pytest.raises(FedproofError, match=message) as raised:
            vision.load(path)
        assert str(raised.value).endswith(".") and "\n" not in str(raised.value)


def test_truncated_files(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    for part in ("train", "t10k"):
        write_idx(raw / f"{part}-images-idx3-ubyte", images(5))
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(5))
    file = raw / "train-images-idx3-ubyte"
    for length in (file.stat().st_size - 9, 3, 0):
        os.truncate(file, length)
        with pytest.raises(FedproofError, match="cannot read the files of mnist"):
            task("mnist").load(tmp_path)


@pytest.fixture
def server(tmp_path):
    """Serve a folder as a mirror of downloads would."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()


def test_corrupted_download(tmp_path, monkeypatch, server):
    served, url = server
    kind = torchvision.datasets.FashionMNIST
    for name, _ in kind.resources:
        (served / name).write_bytes(gzip.compress(b"not what was promised"))
    monkeypatch.setattr(kind, "mirrors", [url])
    with pytest.raises(FedproofError, match=r"cannot read the files of fashion_mnist.*damaged"):
        task("fashion_mnist", download=True).load(tmp_path / "root")


def test_corrupted_archive_of_cifar(tmp_path, monkeypatch, server):
    served, url = server
    (served / "cifar.tar.gz").write_bytes(gzip.compress(b"not what was promised"))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", url + "cifar.tar.gz")
    with pytest.raises(FedproofError, match="cannot read the files of cifar10"):
        task("cifar10", download=True).load(tmp_path / "root")


def test_unreachable_download(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar.tar.gz")
    with pytest.raises(FedproofError, match="cannot read the files of cifar10"):
        task("cifar10", download=True).load(tmp_path / "root")


@pytest.mark.parametrize(
    "content", ["{}", "[", '{"users": [], "user_data": {}}', '{"users": ["a"]}']
)
def test_leaf_without_users(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(FedproofError, match="is not LEAF's: it needs users"):
        task("femnist").load(tmp_path)


def test_leaf_of_another_shape(tmp_path):
    leaf(tmp_path / "a.json", {"w0": (images(2, side=8), [0, 1])})
    with pytest.raises(FedproofError, match="user w0 needs one row of 784 per label"):
        task("femnist").load(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": images(2)}, "needs the arrays x, y and has x"),
        ({"x": images(2), "y": np.zeros(3, int)}, "same number of rows, at least one: x 2, y 3"),
        ({"x": images(0), "y": np.zeros(0, int)}, "at least one: x 0, y 0"),
        ({"x": images(2, side=8), "y": np.zeros(2, int)}, r"x must be uint8 images.*\(8, 8\)"),
        ({"x": images(2) / 255, "y": np.zeros(2, int)}, "x must be uint8 images.*got float64"),
        ({"x": images(2), "y": np.array([0, 62])}, "whole numbers from 0 to 61"),
        ({"x": images(2), "y": np.array([0.0, 1.0])}, "whole numbers from 0 to 61"),
        ({"x": images(2), "y": np.array([0, 1]), "test": np.zeros(3, bool)}, "one value per image"),
        (
            {"x": images(2), "y": np.array([0, 1]), "writer": np.array([0, 9]), "writers": ["a"]},
            "positions in writers",
        ),
    ],
)
def test_wrong_npz(tmp_path, arrays, message):
    file = tmp_path / "images.npz"
    np.savez(file, **arrays)
    with pytest.raises(FedproofError, match=message):
        task("femnist").load(file)


def test_what_is_no_npz(tmp_path):
    file = tmp_path / "images.npz"
    file.write_bytes(b"PK\x03\x04 not quite")
    with pytest.raises(FedproofError, match=r"is not a readable .npz file"):
        task("femnist").load(file)
