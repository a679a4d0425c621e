import csv
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from conf.compose import compose
from conf.errors import FedproofError
from conf.schema import Scaling, TaskConfig
from task.base import merge_moments, moments
from task.source import DataSource
from task.tasks.healthcare import COLUMNS, NUMERIC, Task, encode

ROOT = Path(__file__).resolve().parents[3]
CENTRES = {
    "cleveland": "cleveland",
    "hungarian": "hungary",
    "switzerland": "switzerland",
    "va": "va",
}
ROW = "63,1,4,140,260,0,1,112,1,3,2,?,?,2\n"


def heart(features="full", scaling=Scaling.local):
    return Task(TaskConfig("healthcare", scaling=scaling, options={"features": features}))


def rows_of(pool, client):
    return np.flatnonzero(np.asarray(pool.clients) == client)


def same(one, other):
    return torch.equal(one.nan_to_num(-9), other.nan_to_num(-9))


def flamby_oracle(raw):
    """Follow FLamby's fed_heart_disease/dataset.py: features, labels, held-out, centre."""
    features, labels, sets, centres = pandas.DataFrame(), [], [], []
    for name, centre in CENTRES.items():
        frame = pandas.read_csv(raw / f"processed.{name}.data", header=None, na_values="?")
        frame = frame.drop([10, 11, 12], axis=1).dropna(axis=0)
        positive = (frame.iloc[:, -1] > 0).astype(int)
        stratify = positive if all((positive == level).sum() > 2 for level in (0, 1)) else None
        _, test = train_test_split(
            np.arange(len(frame)), test_size=1.0 - 0.66, train_size=0.66, random_state=43,
            shuffle=True, stratify=stratify,
        )  # fmt: skip
        features = pandas.concat((features, frame.iloc[:, :-1]), ignore_index=True)
        labels += positive.tolist()
        sets += [i in set(test) for i in range(len(frame))]
        centres += [centre] * len(frame)
    dummies = pandas.get_dummies(features, columns=[2, 6], drop_first=True)
    return dummies.to_numpy(dtype=np.float32), labels, sets, centres


def test_embedded_rows_equal_the_original_files(shared_data):
    embedded = heart().load(None)
    original = heart().load(shared_data / "heart" / "raw")
    assert list(embedded.clients) == list(original.clients)
    assert same(embedded.rows.x, original.rows.x)
    assert torch.equal(embedded.rows.y, original.rows.y)


def test_the_csv_in_words_equals_the_original_files_but_for_one_tag(shared_data):
    words = heart().load(shared_data / "heart" / "heart_disease_uci.csv")
    embedded = heart().load(None)
    assert same(words.rows.x, embedded.rows.x)
    differing = [i for i in range(920) if words.clients[i] != embedded.clients[i]]
    assert differing == [303]
    assert words.clients[303] == "cleveland"


def test_hospitals_and_diagnoses():
    pool = heart().load(None)
    counts = {c: (len(rows_of(pool, c)), int(pool.labels[rows_of(pool, c)].sum())) for c in
              CENTRES.values()}  # fmt: skip
    assert counts == {
        "cleveland": (303, 139), "hungary": (294, 106), "switzerland": (123, 115), "va": (200, 149),
    }  # fmt: skip
    assert pool.test is None
    assert torch.equal(pool.rows.y, torch.from_numpy(pool.labels).float())


def test_full_features_by_hand():
    table = np.array([
        [63, 1, 4, 140, 0, 0, 1, 112, 1, 3, 2, np.nan, np.nan, 2],
        [40, 0, 1, 0, 200, np.nan, 2, np.nan, 0, 0, 3, 3, 7, 0],
    ])  # fmt: skip
    nan = np.nan
    numbers = [[63, 140, nan, 112, 3, nan], [40, nan, 200, nan, 0, 3]]
    #           sex cp          fbs restecg  exang slope    thal
    one_hot = [[1, 0, 0, 0, 1, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0],
               [0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1]]  # fmt: skip
    #           trestbps chol fbs restecg thalach exang oldpeak slope ca thal
    missing = [[0, 1, 0, 0, 0, 0, 0, 0, 1, 1], [1, 0, 1, 0, 1, 0, 0, 0, 0, 0]]
    expected = np.hstack([numbers, one_hot, missing])
    np.testing.assert_array_equal(encode(table), expected)
    assert heart().spec({}).input_shape == (32,)


def test_each_hospital_standardises_with_its_own_training_rows():
    task = heart()
    rows = task.load(None).rows
    train, test = rows.take(np.arange(200)), rows.take(np.arange(200, 303))
    data = task.prepare(train, test, task.agree([task.describe(train)]))
    known = ~train.x[:, :6].isnan()
    for i in range(len(NUMERIC)):
        column = data.train.x[known[:, i], i]
        assert abs(float(column.mean())) < 1e-5
        assert float(column.std()) == pytest.approx(1, abs=1e-5)
    assert (data.train.x[:, :6][~known] == 0).all(), "a missing number is the mean"
    assert torch.equal(data.train.x[:, 6:], train.x[:, 6:]), "0 and 1 stay 0 and 1"
    assert data.train.x.isfinite().all() and data.test.x.isfinite().all()
    assert task.describe(train) == {}, "local scaling tells the server nothing"


def test_federated_scaling_equals_pooled_statistics():
    task = heart(scaling=Scaling.federated)
    pool = task.load(None)
    parts = [pool.rows.take(rows_of(pool, client)) for client in CENTRES.values()]
    shared = task.agree([task.describe(part) for part in parts])
    x = pool.rows.x[:, :6].double().numpy()
    np.testing.assert_allclose(shared["mean"], np.nanmean(x, 0), rtol=1e-9)
    np.testing.assert_allclose(shared["std"], np.nanstd(x, 0, ddof=1), rtol=1e-9)


def test_flamby_rows_features_and_split_are_flambys(shared_data):
    features, labels, sets, centres = flamby_oracle(shared_data / "heart" / "raw")
    pool = heart("flamby").load(None)
    np.testing.assert_array_equal(pool.rows.x.numpy(), features)
    np.testing.assert_array_equal(pool.labels, labels)
    np.testing.assert_array_equal(pool.test, sets)
    assert list(pool.clients) == centres
    sizes = {c: (int((~pool.test[rows_of(pool, c)]).sum()), int(pool.test[rows_of(pool, c)].sum()))
             for c in CENTRES.values()}  # fmt: skip
    assert sizes == {
        "cleveland": (199, 104), "hungary": (172, 89), "switzerland": (30, 16), "va": (85, 45),
    }  # fmt: skip
    assert heart("flamby").spec({}).input_shape == (13,)


def test_flamby_pooled_training_reproduces_the_published_accuracy():
    pool = heart("flamby").load(None)
    facts = merge_moments([moments(pool.rows.x[~pool.test])])
    x = ((pool.rows.x.numpy() - facts["mean"]) / facts["std"]).astype(np.float32)
    model = LogisticRegression().fit(x[~pool.test], pool.labels[~pool.test])
    assert model.score(x[pool.test], pool.labels[pool.test]) == pytest.approx(0.795, abs=0.0005)


@pytest.mark.parametrize("features", ["full", "flamby"])
def test_same_tensors_every_time_through_the_data_source(features):
    settings = compose(("task=healthcare", f"task.features={features}"))
    one, other = (DataSource(settings) for _ in range(2))
    assert one.clients == sorted(CENTRES.values())
    for client in one.clients:
        assert torch.equal(one.data(client, {}).train.x, other.data(client, {}).train.x)
        assert torch.equal(one.data(client, {}).test.x, other.data(client, {}).test.x)


def test_a_silo_brings_its_own_file(tmp_path):
    (tmp_path / "processed.hungarian.data").write_text(ROW * 3)
    (tmp_path / "clinic.csv").write_text("\ufeff" + ",".join(COLUMNS) + "\n" + ROW, "utf-8")
    (tmp_path / "two.csv").write_text(
        ",".join(COLUMNS) + f",hospital\n{ROW.strip()},VA Long Beach\n{ROW.strip()},Mayo\n"
    )
    assert heart().load(tmp_path / "processed.hungarian.data").clients == ["hungary"] * 3
    assert heart().load(tmp_path).clients == ["hungary"] * 3
    assert heart().load(tmp_path / "clinic.csv").clients == ["clinic"]
    assert heart().load(tmp_path / "two.csv").clients == ["va", "mayo"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_flamby_features_of_a_tiny_silo(tmp_path, count):
    file = tmp_path / "processed.clinic.data"
    file.write_text(ROW * count)
    pool = heart("flamby").load(file)
    assert len(pool.rows) == count and (~pool.test).any()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no rows"),
        (",".join(COLUMNS) + "\n", "no rows"),
        (",".join(COLUMNS[:-1]) + "\n" + ROW, "column num is missing"),
        (ROW + ROW.replace("63", "old"), "line 2, column 'age': expected a number"),
        (ROW.replace("63", "inf"), "line 1, column 'age': expected a number"),
        (ROW.replace("63,1,4", "63,1,9"), "column 'cp': expected one of 1, 2, 3, 4"),
        (ROW.replace(",2\n", ",?\n"), "column 'num': expected a number"),
        ("63,1,4\n", "column 'num': expected a number"),
        (",".join(COLUMNS) + f",hospital\n{ROW.strip()},\n", "the hospital is missing"),
    ],
)
def test_unfit_files_are_refused_in_one_sentence(tmp_path, text, sentence):
    file = tmp_path / "clinic.csv"
    file.write_text(text)
    with pytest.raises(FedproofError, match=sentence):
        heart().load(file)


def test_what_is_not_text_is_refused(tmp_path):
    (tmp_path / "clinic.data").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(FedproofError, match="must be UTF-8 text"):
        heart().load(tmp_path / "clinic.data")
    with pytest.raises(FedproofError, match="no heart-disease data"):
        heart().load(tmp_path)
    with pytest.raises(FedproofError, match="no heart-disease data"):
        heart().load(tmp_path / "absent.csv")


def test_features_must_be_known():
    with pytest.raises(FedproofError, match="must be one of full, flamby"):
        heart("fancy").spec({})


def test_the_default_path_stays_light():
    code = (
        "import sys; from conf.compose import compose; from task.source import DataSource; "
        "s = DataSource(compose(())); [s.data(c, {}) for c in s.clients]; "
        "print('pandas' in sys.modules, 'sklearn' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_embedded_file_is_rebuilt_from_its_source(shared_data, tmp_path, monkeypatch):
    path = ROOT / "benchmarks" / "data" / "heart.py"
    spec = importlib.util.spec_from_file_location("rebuild", path)
    rebuild = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rebuild)
    before = rebuild.EMBEDDED.read_text(encoding="utf-8")
    monkeypatch.setattr(rebuild, "EMBEDDED", tmp_path / "heart.jsonl")
    source = shared_data / "heart" / "heart_disease_uci.csv"
    rebuild.main(source)
    assert (tmp_path / "heart.jsonl").read_text(encoding="utf-8") == before
    with source.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == before.count("\n") == 920
