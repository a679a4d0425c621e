"""What a hidden answer tells in clear: how long it is, and what its figures are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flwr.app import ConfigRecord

from task.shown import is_plain
from task.wire import WireError, listed

_MOST = 1 << 40
"""Values of an answer; of lengths beyond, memory could not hold one."""
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Layout:
    """Sizes and names.

    Attributes
    ----------
    size : int
        Values of the update; 0: there is none.
    figures : mapping of str to int
        How many figures have which name.
    """

    size: int
    figures: Mapping[str, int]

    def pack(self) -> ConfigRecord:
        """Return it for the wire."""
        names, lengths = list(self.figures), list(self.figures.values())
        return ConfigRecord({"size": self.size, "names": names, "lengths": lengths})

    @classmethod
    def unpack(cls, told: ConfigRecord) -> Layout:
        """Read what `pack` returned.

        Raises
        ------
        WireError
            If it is something else.
        """
        names, lengths = listed(told, "names", str), listed(told, "lengths", int)
        size = told.get("size")
        sizes = [size, *lengths]
        numbers = all(type(n) is int and 0 <= n < _MOST for n in sizes)
        plain = all(is_plain(name, _LONGEST_NAME) for name in names)
        if not numbers or not plain or not len(names) == len(lengths) == len(set(names)):
            raise WireError("the sizes of what it hides cannot be read")
        return cls(int(str(size)), dict(zip(names, lengths, strict=True)))


def usual(layouts: Iterable[Layout]) -> Layout | None:
    """Return the layout of most answers, so that no single one decides what the others must be."""
    counts = Counter((layout.size, tuple(layout.figures.items())) for layout in layouts)
    if not counts:
        return None
    size, figures = max(counts, key=lambda key: (counts[key], key))
    return Layout(size, dict(figures))
