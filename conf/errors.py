"""The one exception that users see."""

from __future__ import annotations


class FedproofError(Exception):
    """A mistake of the user or of the surroundings, told in one sentence.

    The sentence says what is wrong, where, and how to mend it. Everything else that is raised is
    a bug and keeps its traceback.
    """
