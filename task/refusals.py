"""What a silo says where it does not answer: sentences from one fixed list.

A sentence that quotes data, or depends on them, is a release that no ledger counts. So those that
leave a silo are chosen here, by what a server may know anyway: its own message, the run's settings,
the silo's policy. What an operator needs to mend the fault stays in the silo's log and audit log.
Simulated nodes, whose rows are the server's own, send the whole sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from conf.errors import FedproofError
from task.wire import WireError

_LOG = "see the silo's log."


class Refusal(StrEnum):
    """The sentences that may leave a silo in place of an answer."""

    settings = f"this silo does not accept the run's settings: {_LOG}"
    version = (
        "this silo runs other code or settings than the server: bring both to the same version."
    )
    kind = "this silo does not know such messages."
    message = f"this silo cannot read the message: {_LOG}"
    model = f"the server's model does not fit the run: {_LOG}"
    repeated = (
        "this silo has answered this round, or a later one, of this run before: start another run."
    )
    budget = f"the privacy budget is used up: {_LOG}"
    planned = "it has answered as many evaluations as the run plans."
    unanswered = "evaluation is not answered under this silo's policy."
    separation = f"it took part too few rounds before (privacy.separation): {_LOG}"
    data = f"its data or its settings do not fit the run: {_LOG}"
    roster = f"it knows no other clients, and the run's secure sums need that: {_LOG}"
    diverged = f"its update holds NaN or infinity: lower train.lr; {_LOG}"
    unprotected = f"what the answer holds is not protected as it must be: {_LOG}"
    secure = f"it does not take part in this secure sum: {_LOG}"
    records = f"this silo's records cannot be written, or are not its newest: {_LOG}"
    failed = f"it failed: {_LOG}"
    policy = f"this silo's policy does not allow it: {_LOG}"
    approved = "this silo's policy (settings) does not allow it."
    protection = "this silo's policy (protection) does not allow it."
    client = "this silo's policy (client) does not allow it."
    held_out = "this silo's policy (held_out) does not allow it."
    categories = "this silo's policy (categories) does not allow it."
    evaluations = "this silo's policy (limits.evaluations) does not allow it."
    tasks = "this silo's policy (tasks) does not allow it."
    code = "this silo's policy (code) does not allow it."
    submitters = "this silo's policy (submitters) does not allow it."
    columns = "this silo's policy (columns) does not allow it."
    quiet_hours = "this silo's policy (quiet_hours) does not allow it."
    dry_run = "this silo's policy (dry_run) does not allow it."
    rounds = "this silo's policy (limits.rounds) does not allow it."
    epochs = "this silo's policy (limits.epochs) does not allow it."
    steps = "this silo's policy (limits.steps) does not allow it."
    update_bytes = "this silo's policy (limits.update_bytes) does not allow it."
    min_rows = "this silo's policy (metrics.min_rows) does not allow it."
    sums = "this silo's policy (metrics.sums) does not allow it."

    @classmethod
    def of_rule(cls, rule: str) -> Refusal:
        """Return the sentence for a rule of the policy file; a general one if it has none."""
        try:
            return cls(f"this silo's policy ({rule}) does not allow it.")
        except ValueError:
            return cls.policy


class RefusalError(FedproofError):
    """A mistake for which a silo has a sentence of its own.

    Parameters
    ----------
    refusal : Refusal
        What leaves a silo.
    reason : str
        The whole sentence, for the silo's log, and for simulations.
    """

    def __init__(self, refusal: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.refusal = refusal


@dataclass(frozen=True)
class Failure:
    """Why there is no answer.

    Attributes
    ----------
    refusal : Refusal
        What a silo says.
    sentence : str
        What its operator reads, and what a simulated node says.
    """

    refusal: Refusal
    sentence: str

    @classmethod
    def of(cls, error: Exception, otherwise: Refusal = Refusal.data) -> Failure:
        """Describe an error; one that nobody foresaw by its type only, for its text may quote data.

        Parameters
        ----------
        error : Exception
            What was raised.
        otherwise : Refusal
            For mistakes without a sentence of their own.
        """
        if isinstance(error, RefusalError):
            return cls(error.refusal, str(error))
        if isinstance(error, WireError):
            return cls(Refusal.message, str(error))
        if isinstance(error, FedproofError):
            return cls(otherwise, str(error))
        return cls(Refusal.failed, f"{type(error).__name__}: see the log of the client's node.")

    def told(self, *, simulated: bool) -> str:
        """Return what leaves."""
        return self.sentence if simulated else str(self.refusal)
