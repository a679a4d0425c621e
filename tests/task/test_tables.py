import pandas
import pytest

from conf.errors import FedproofError
from task import tables


def frame(**columns):
    return pandas.DataFrame(columns)


def test_files(tmp_path):
    frame(a=[1, 2], b=["x", "NA"]).to_csv(tmp_path / "one.csv", index=False)
    frame(a=[3], b=["y"]).to_parquet(tmp_path / "two.parquet")
    rows, clients = tables.read_tables(tmp_path)
    assert clients == ["one", "one", "two"] and rows["a"].tolist() == [1, 2, 3]
    assert rows["b"].isna().tolist() == [False, True, False]
    assert tables.read_tables(tmp_path / "one.csv")[1] is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "there is no file"),
        ("data.xlsx", b"x", "is not a table: give a file ending in .csv"),
        ("broken.parquet", b"secret", "cannot read .*broken.parquet"),
        ("binary.csv", b"\xff\xfe\x00\x01", "cannot read .*binary.csv"),
        ("empty.csv", b"", "cannot read .*empty.csv"),
        ("header.csv", b"a,b\n", "has no rows"),
        ("ragged.csv", b"a,b\n1,2,3\n4,5,6,7\n", "cannot read"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FedproofError, match=message) as caught:
        tables.read_table(tmp_path / name)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_bad_folders(tmp_path):
    with pytest.raises(FedproofError, match="has no file ending in"):
        tables.read_tables(tmp_path)
    frame(a=[1]).to_csv(tmp_path / "one.csv", index=False)
    frame(a=[1]).to_csv(tmp_path / "one.csv.gz", index=False)
    with pytest.raises(FedproofError, match="name the same client"):
        tables.read_tables(tmp_path)
    (tmp_path / "one.csv.gz").unlink()
    frame(b=[1]).to_csv(tmp_path / "two.csv", index=False)
    with pytest.raises(FedproofError, match="differ in the columns 'a', 'b'"):
        tables.read_tables(tmp_path)


def test_a_missing_column_names_its_neighbours():
    with pytest.raises(FedproofError, match="has no column 'agee': did you mean 'age'"):
        tables.require(frame(age=[1]), ["agee"], "t.csv")
