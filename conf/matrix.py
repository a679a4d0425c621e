"""Typed settings of a matrix of runs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class MatrixConfig:
    """Many runs in place of one, and a table of what came out.

    Attributes
    ----------
    row, column, page : str or None
        Which setting each of them varies, such as ``attack``, ``strategy`` or ``partition``.
    rows, columns, pages : list of str
        Its values. Further overrides may follow a value after a space; a strategy may have
        defences before it, as in ``nnm+fedmedian``.
    """

    row: str | None = None
    rows: list[str] = field(default_factory=list)
    column: str | None = None
    columns: list[str] = field(default_factory=list)
    page: str | None = None
    pages: list[str] = field(default_factory=list)
