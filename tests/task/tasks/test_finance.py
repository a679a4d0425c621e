import contextlib
import json
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from conf.errors import FedproofError
from conf.schema import Scaling, TaskConfig
from task.tasks import finance
from task.tasks.finance import AMOUNTS, CARD_COLUMNS, CODES, COUNTS, LOANS, Task


def task(dataset="loans", min_rows=100, download=False):
    options = {"min_rows": min_rows, "download": download}
    return Task(TaskConfig("finance", dataset=dataset, options=options))


@pytest.fixture(scope="module")
def table():
    lines = [json.loads(line) for line in LOANS.read_text().splitlines()]
    return pandas.DataFrame(lines[1:], columns=lines[0])


def test_states_with_enough_loans(table):
    pool = task().load(None)
    assert len(set(pool.clients)) == 29 and len(pool.rows) == 8968
    everyone = task(min_rows=1).load(None)
    assert len(set(everyone.clients)) == 50 and len(everyone.rows) == 9857
    assert everyone.clients == table["addr_state"].str.lower().tolist()
    assert int(everyone.labels.sum()) == (table["Class"] == "bad").sum()
    assert LOANS.stat().st_size < 2_000_000


def test_features_follow_the_codebook(table):
    x = task(min_rows=1).load(None).rows.x.double().numpy()
    assert x.shape == (9857, task().spec({}).input_shape[0])
    expected = np.log1p(table[list(AMOUNTS)].to_numpy(float))
    np.testing.assert_allclose(x[:, : len(AMOUNTS)], expected, rtol=1e-6)
    counts = x[:, len(AMOUNTS) : len(AMOUNTS) + len(COUNTS)]
    np.testing.assert_allclose(counts, table[list(COUNTS)].to_numpy(float), rtol=1e-6)
    term, grade, verified, income = x[:, -6], x[:, -5], x[:, -4:-2], x[:, -2:]
    assert (term == (table["term"] == "term_60")).all()
    order = sorted(table["sub_grade"].unique())
    assert (np.argsort([grade[table["sub_grade"] == g][0] for g in order]) == range(35)).all()
    assert (verified.sum(1) == (table["verification_status"] != "Not_Verified")).all()
    assert (income[:, 1] == (table["emp_length"] == "emp_unk")).all()
    assert set(CODES) == {"term", "sub_grade", "verification_status", "emp_length"}


def test_original_table_has_the_same_rows(shared_data, table):
    original = pandas.read_csv(shared_data / "loans" / "lending_club_modeldata.csv.gz")
    assert (original[table.columns].to_numpy() == table.to_numpy()).all()
    pool = task(min_rows=1).load(shared_data / "loans" / "lending_club_modeldata.csv.gz")
    embedded = task(min_rows=1).load(None)
    assert pool.rows.x.equal(embedded.rows.x) and pool.clients == embedded.clients


def test_a_silo_without_states_is_one_client(tmp_path, table):
    file = tmp_path / "bank.csv"
    table.drop(columns="addr_state").head(50).to_csv(file, index=False)
    assert task().load(file).clients is None


def spoiled(table, column, value):
    few = table.head(20).astype({column: object})
    few.loc[3, column] = value
    return few


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("annual_inc", "much", "column 'annual_inc' must hold valid numbers"),
        ("annual_inc", -1, "column 'annual_inc' must hold valid numbers"),
        ("int_rate", None, "column 'int_rate' must hold valid numbers"),
        ("sub_grade", "H9", "column 'sub_grade' has 1 value.* outside the codebook"),
        ("Class", "ugly", "column 'Class' has 1 value.* outside the codebook"),
    ],
)
def test_bad_cells_are_named_but_not_quoted(tmp_path, table, column, value, message):
    file = tmp_path / "loans.csv"
    spoiled(table, column, value).to_csv(file, index=False)
    with pytest.raises(FedproofError, match=message) as caught:
        task(min_rows=1).load(file)
    if isinstance(value, str):
        assert value not in str(caught.value)


def test_bad_choices(tmp_path, table):
    with pytest.raises(FedproofError, match="task.dataset must be one of loans, creditcard"):
        task("stocks").load(None)
    with pytest.raises(FedproofError, match="no state has task.min_rows=99999"):
        task(min_rows=99_999).load(None)
    with pytest.raises(FedproofError, match="there is no file"):
        task().load(tmp_path / "none.csv")
    file = tmp_path / "loans.csv"
    table.head().drop(columns="term").to_csv(file, index=False)
    with pytest.raises(FedproofError, match="has no column 'term'"):
        task().load(file)


def cards(folder, rows=200, frauds=9, suffix="csv"):
    rng = np.random.default_rng(0)
    data = pandas.DataFrame(rng.normal(size=(rows, 29)).round(3), columns=list(CARD_COLUMNS))
    data["Amount"] = data["Amount"].abs()
    data.insert(0, "Time", range(rows))
    data["Class"] = (np.arange(rows) < frauds).astype(int)
    file = Path(folder) / f"creditcard.{suffix}"
    data.to_csv(file, index=False) if suffix == "csv" else data.to_parquet(file)
    return file


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_cards(tmp_path, suffix):
    file = cards(tmp_path, suffix=suffix)
    pool = task("creditcard").load(file)
    assert pool.rows.x.shape == (200, 29) == (200, *task("creditcard").spec({}).input_shape)
    assert pool.clients is None and int(pool.labels.sum()) == 9
    assert pool.rows.y.dtype == torch.float32
    with pytest.raises(FedproofError, match="found no task.path: give the file"):
        task("creditcard").load(None)


def test_real_cards(shared_data):
    file = shared_data / "creditcard_fraud" / "creditcard_f32_fifth.parquet"
    pool = task("creditcard").load(file)
    assert len(pool.rows) == 57_368 and int(pool.labels.sum()) == 492


def test_download_keeps_only_what_is_whole(tmp_path, monkeypatch):
    served = cards(tmp_path)
    monkeypatch.setattr(finance, "CARD_URL", served.as_uri())
    target = tmp_path / "cache" / "cards.csv"
    finance_task = task("creditcard", download=True)
    with pytest.raises(FedproofError, match="200 rows with 9 frauds instead of 284807 with 492"):
        finance_task.load(target)
    assert list(target.parent.iterdir()) == []
    monkeypatch.setattr(finance, "CARD_ROWS", 200)
    monkeypatch.setattr(finance, "CARD_FRAUDS", 9)
    assert len(finance_task.load(target).rows) == 200
    served.unlink()
    assert len(finance_task.load(target).rows) == 200  # Not fetched again.
    with pytest.raises(FedproofError, match="cannot download"):
        finance_task.load(tmp_path / "cache" / "other.csv")
    with contextlib.suppress(FileNotFoundError):
        assert list(target.parent.iterdir()) == [target]


def test_scaling_is_the_federations():
    federated = Task(
        TaskConfig("finance", dataset="loans", scaling=Scaling.federated, options={"min_rows": 100})
    )
    pool = federated.load(None)
    halves = [pool.rows.take(np.arange(i, len(pool.rows), 2)) for i in range(2)]
    shared = federated.agree([federated.describe(half) for half in halves])
    x = torch.cat([federated.prepare(half, half, shared).train.x for half in halves])
    torch.testing.assert_close(x.mean(0), torch.zeros(x.shape[1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std(0), torch.ones(x.shape[1]), atol=1e-3, rtol=0)
