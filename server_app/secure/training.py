"""Federated training of one round of which the server sees sums only."""

from __future__ import annotations

from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from server_app.federation.layout import Layout
from server_app.federation.reduction import WEIGHT
from server_app.federation.validation import InvalidAnswerError
from server_app.profile import EXCHANGE
from server_app.secure.collected import Check, Collector, HiddenSum, Purpose, Upcoming
from server_app.training import Training
from task import layouts
from task.secure.kinds import Kind
from task.wire import config


class SecureTraining(Training):
    """The training of one model by one cohort, in secure sums.

    Parameters
    ----------
    collector : Collector
        Brings the sums about.
    upcoming : callable
        Tells what will be summed next.
    *args, **kwargs
        As for `Training`.
    """

    def __init__(self, collector: Collector, upcoming: Upcoming, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._collector = collector
        self._upcoming = upcoming
        self._facts: dict[str, Any] = {}

    def run(
        self, strategy: Strategy, number: int, arrays: ArrayRecord, timeout: float
    ) -> tuple[list[Message], list[str], dict[str, str]]:
        """Let the cohort train; return a group's sum as one answer, and whose they hold."""
        config = ConfigRecord({"server-round": number, **self._account.told()})
        with self._clock.stage("configuration"):
            asked, messages = self._configure(strategy, number, arrays, config)
        purpose = Purpose(Kind.TRAIN.value, number, tuple(self._grid.cohort))
        with self._clock.stage(EXCHANGE):
            collected = self._collector.collect(
                purpose, messages, timeout, self._upcoming, self._hides(arrays)
            )
        with self._clock.stage("aggregation"):
            answers = [self._answer(asked, arrays, total) for total in collected.sums]
            if self._account.secret and not answers:
                answers = [self._nobody(asked, arrays)]
            answered = sorted(collected.answers)
            self.privacy = self._account.add((c, collected.answers[c]) for c in answered)
        self._facts = {
            "sums": [len(total.clients) for total in collected.sums],
            "error": max((total.mean_error for total in collected.sums), default=0.0),
        }
        if collected.abandoned:
            self._facts["abandoned"] = collected.abandoned
        if not collected.sums and not self._account.secret:
            self.abandoned = "; ".join(collected.abandoned) or "nobody was asked"
        elif not collected.sums and len(purpose.cohort) >= self._least_asked:
            self.abandoned = "too few of those who were drawn answered"
        return answers, answered, collected.failed

    @property
    def _least_asked(self) -> int:
        """Clients without whom there can be no sum."""
        facts = self._collector.facts()
        return int(facts["min_cohort"]) * int(facts["groups"])

    def line(
        self, number: int, answered: list[str], failed: dict[str, str], attempts: int
    ) -> dict[str, Any]:
        """Return a line's part on who was asked, and on the sums."""
        del attempts
        facts = {} if self._account.secret else {"secure": self._facts}
        return {**super().line(number, answered, failed, 1), **facts}

    def _hides(self, arrays: ArrayRecord) -> Check:
        """Return what refuses an answer that says something else than an update of the model."""
        size = Layout(arrays).size

        def check(content: RecordDict) -> None:
            self._account.check_hidden(content)
            hidden = layouts.Layout.unpack(config(content, "layout"))
            if hidden.size != size or hidden.figures.get(WEIGHT) != 1:
                raise InvalidAnswerError("what it hides is no update of the model")

        return check

    def _answer(self, asked: Message, arrays: ArrayRecord, total: HiddenSum) -> Message:
        """Return a sum as the answer of one client, of the weight of all."""
        (weight,) = total.figures[WEIGHT]
        like = Layout(arrays)
        mean = self._account.mean(total)
        metrics: dict[str, float] = {}
        if not self._account.noises_sums:
            metrics = {n: value / weight for n, (value,) in total.figures.items() if n != WEIGHT}
        record = MetricRecord({**metrics, WEIGHT: round(weight)})
        return _moved(asked, like, mean, record)

    def _nobody(self, asked: Message, arrays: ArrayRecord) -> Message:
        """Return the answer of a secret round without a sum."""
        like = Layout(arrays)
        mean = self._account.mean_of_nobody(like.size)
        return _moved(asked, like, mean, MetricRecord({WEIGHT: 1}))


def _moved(asked: Message, like: Layout, mean: Tensor, record: MetricRecord) -> Message:
    """Return the model after a mean update as an answer."""
    told = RecordDict({"arrays": like.arrays_of(like.vector() + mean), "metrics": record})
    return Message(told, reply_to=asked)
