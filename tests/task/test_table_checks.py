"""A silo's table without a header, or with identifiers, is found at home, by its operator."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import FedproofError
from task import table_checks, tables
from task.privacy.policy import Policy

PATIENT = "Jane Doe,1961-05-02,63,1,cholera"
NO_HEADER = {
    "date of birth": PATIENT + "\nJohn Smith,1950-01-31,41,0,flu\n",
    "numbers": "63,1,145,0\n41,0,120,1\n",
    "times": "ill,10:30\nwell,11:00\n",
    "empty": "ill,,x\na,b,c\n",
    "twice": "p,p,q\na,b,c\n",
    "missing": "age,?,x\n1,2,3\n",
    "address": "jane@example.org,q\njohn@example.org,r\n",
}
ONLY_BY_ROWS = {
    "recurring": "Jane Doe,ward a\nJohn Smith,ward b\nAnn Lee,ward a\n",
    "written alike": "P-0012,ill\nP-0344,well\nP-0711,well\n",
}
HEADERS = {
    "names": "age,sex,Na,diagnosis 2\n1,m,140,cholera\n2,f,138,flu\n",
    "years": "site,2019,2020,2021\na,0.1,0.2,0.3\n",
    "places": ",".join(map(str, range(64))) + "\n" + ",".join(["7"] * 64) + "\n",
    "row labels": ",age,ill\n0,40,yes\n1,50,no\n",
}


def written(folder, text, name="table.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("case", NO_HEADER)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_a_first_row_in_place_of_names(tmp_path, case, suffix):
    path = written(tmp_path, NO_HEADER[case])
    if suffix == ".csv.gz":
        pandas.Series([1]).to_csv(tmp_path / "x.csv.gz")
        import gzip

        path = tmp_path / "table.csv.gz"
        path.write_bytes(gzip.compress(NO_HEADER[case].encode()))
    elif suffix == ".parquet":
        if case in ("empty", "twice"):
            return  # Parquet has no such names.
        table = pandas.read_csv(path)
        path = tmp_path / "table.parquet"
        table.to_parquet(path)
    with pytest.raises(FedproofError, match="looks like data.*write a header") as refused:
        table_checks.require_header(path)
    assert not any(cell in str(refused.value) for cell in ("Jane", "1961", "cholera"))


@pytest.mark.parametrize("case", ONLY_BY_ROWS)
def test_a_first_row_that_only_the_others_give_away(tmp_path, case):
    path = written(tmp_path, ONLY_BY_ROWS[case])
    with pytest.raises(FedproofError, match="looks like data"):
        table_checks.require_distinct_header(path)
    # Whether a protected run is answered must not depend on rows.
    table_checks.require_header(path)


@pytest.mark.parametrize("case", HEADERS)
def test_headers_pass(tmp_path, case):
    table_checks.require_distinct_header(written(tmp_path, HEADERS[case]))


@given(st.lists(st.lists(st.sampled_from(["a", "7", "", "x,y", "1999-01-02"]), min_size=4,
                         max_size=4), max_size=6))  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_the_header_alone_decides_where_rows_are_protected(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("tables")
    body = "".join(",".join(row) + "\n" for row in rows)
    table_checks.require_header(written(folder, "age,sex,ward,ill\n" + body))
    with pytest.raises(FedproofError):
        table_checks.require_header(written(folder, "age,sex,1999-01-02,ill\n" + body))


def test_every_file_of_a_folder_is_looked_at_and_hidden_ones_are_none(tmp_path):
    written(tmp_path, HEADERS["names"], "a.csv")
    written(tmp_path, "\0\1binary", "._a.csv")
    table_checks.require_distinct_header(tmp_path)
    assert tables.read_tables(tmp_path)[1] == ["a", "a"]
    written(tmp_path, NO_HEADER["numbers"], "b.csv")
    with pytest.raises(FedproofError, match=r"b\.csv: its first line looks like data"):
        table_checks.require_header(tmp_path)


def people(count=150, distinct=150):
    names = [f"{'abcdefgh'[i % 8]}{'aeiou'[i % 5]}{i} Doe" for i in range(distinct)]
    rng = np.random.default_rng(0)
    return pandas.DataFrame(
        {
            "name": (names * count)[:count],
            "number": range(7, 7 + count),
            "age": rng.integers(18, 90, count),
            "weight": rng.normal(70, 9, count),
            "ward": [f"ward {i % 9}" for i in range(count)],
            "ill": ["yes", "no"] * (count // 2),
        }
    )


def test_identifiers_are_texts_of_nearly_each_row_and_row_numbers():
    table = people()
    assert table_checks.identifiers(table, table.columns) == ["name", "number"]
    assert table_checks.identifiers(people(150, 113), ["name", "absent"]) == ["name"]
    assert table_checks.identifiers(people(150, 40), ["name"]) == []


STRICT = "tasks: [tabular]\n"
OPEN = STRICT + "privacy: {mechanism: any}\naggregation: {mechanism: any}\n"


def policy(folder, text):
    return Policy.of({"policy": str(written(folder, text, "policy.yaml"))})


def test_a_silos_table_is_checked_by_its_policy_alone(tmp_path):
    path = tmp_path / "people.csv"
    people().to_csv(path, index=False)
    with pytest.raises(FedproofError, match=r"'name', 'number' .*name it in task\.drop"):
        table_checks.check_own_table(path, policy(tmp_path, STRICT))
    columns = "columns: [age, weight, ward, ill]\n"
    assert table_checks.check_own_table(path, policy(tmp_path, STRICT + columns)) == []
    assert table_checks.check_own_table(path, policy(tmp_path, OPEN)) == ["name", "number"]
    assert table_checks.check_own_table(path, Policy()) == ["name", "number"]
    other = policy(tmp_path, "tasks: [healthcare]")
    assert table_checks.check_own_table(written(tmp_path, NO_HEADER["numbers"]), other) == []
    with pytest.raises(FedproofError, match="looks like data"):
        table_checks.check_own_table(tmp_path / "table.csv", policy(tmp_path, OPEN))
