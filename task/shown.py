"""Text that others sent, fit to be shown: in a log, on a terminal, in a page."""

from __future__ import annotations

MOST = 400
"""Characters that are shown of it."""


def shown(text: object, most: int = MOST) -> str:
    """Return a text as one line without what a terminal or a log acts on, cut to `most` characters.

    Control characters, line ends among them, become spaces: a line of a log is one message, and
    none can look like another's. So do marks that turn the direction of text.
    """
    told = str(text)
    line = "".join(c if c.isprintable() else " " for c in told[:most]).strip()
    return f"{line} …" if len(told) > most else line


def is_plain(name: str, most: int) -> bool:
    """Tell whether a name can be shown as it is: not empty, not longer than `most`, one line."""
    return 0 < len(name) <= most and name.isprintable() and name == name.strip()
