import csv

from conf.compose import compose
from task.label_plot import plot_labels
from task.source import DataSource


def test_the_counts_are_beside_the_picture(tmp_path):
    source = DataSource(compose(()))
    path = tmp_path / "partition.png"
    plot_labels(source.pool, source.parts, path, "hospitals")
    assert path.read_bytes().startswith(b"\x89PNG")
    rows = list(csv.reader(path.with_suffix(".csv").open()))
    assert rows[0] == ["client", "label 0", "label 1"]
    counts = {row[0]: [int(value) for value in row[1:]] for row in rows[1:]}
    assert counts["cleveland"] == [164, 139]
    assert sum(map(sum, counts.values())) == 920


def test_many_clients_without_labels(tmp_path):
    source = DataSource(compose(("task=keyboard",)))
    path = tmp_path / "partition.png"
    plot_labels(source.pool, source.parts, path, "roles")
    rows = list(csv.reader(path.with_suffix(".csv").open()))
    assert rows[0] == ["client", "rows"] and len(rows) == 129
