"""The baselines of one federated run: each client alone, and everybody's rows in one place."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from conf.errors import FedproofError
from conf.schema import Engine, Settings
from server_app import checkpoint
from server_app.comparison.likeness import likeness
from server_app.evaluating import Shape, fitting_statistics, usual_shape
from server_app.evidence.events import announce
from server_app.evidence.recorder import Recorder
from server_app.federation.grid import ClientGrid
from server_app.federation.roster import Roster
from server_app.federation.sampling import sample
from server_app.federation.validation import (
    InvalidAnswerError,
    check_metrics,
    reasons,
)
from task.base import Task
from task.evaluation import add
from task.objectives import LOWER_IS_BETTER, Objective, Statistics
from task.personalization import initial_state
from task.pooled import Pooled

log = logging.getLogger("flwr")
KIND = "evaluate.alone"
_KINDS = ("federated", "local")
"""Of models that a client evaluates."""
_COSINE = 1.001
"""What a cosine of single precision cannot be beyond."""


class Baselines:
    """Trains and evaluates them.

    Parameters
    ----------
    settings : Settings
        Of the run.
    task : Task
        What is learned.
    grid : ClientGrid
        To the clients.
    roster : Roster
        Who is there.
    recorder : Recorder
        Of the run.
    """

    def __init__(
        self,
        settings: Settings,
        task: Task[Any],
        grid: ClientGrid,
        roster: Roster,
        recorder: Recorder,
    ) -> None:
        self._settings = settings
        self._task = task
        self._grid = grid
        self._roster = roster
        self._recorder = recorder
        self._shared: Mapping[str, Any] = grid.header["shared"]
        self._objective = task.objective(self._shared)
        both = sorted(set(roster.trainable) & set(roster.testable))
        most = settings.baselines.clients
        share = min(1.0, most / max(len(both), 1))
        self._clients = sample(both, share, settings.seed, "compare") if both else []

    def record(self, model: ArrayRecord) -> None:
        """Write ``baselines.json``: how the run's model does beside the baselines.

        Raises
        ------
        FedproofError
            If there is nothing to compare with.
        """
        if not self._clients:
            raise FedproofError(
                "compare=true needs clients with training and held-out rows of their own, and no "
                "client has both: hold out rows of everyone (task=iot: task.split=rows)."
            )
        lines = self._recorder.lines()
        start, steps = self._start(), self.federated_steps(lines)
        rounds = self.local_rounds(len(lines))
        remote = self._settings.federation.engine is Engine.remote
        why = "; rows stay there, so no model trains on everybody's" if remote else ""
        _announce(f"each client trains alone, rounds: {rounds}{why}", self._settings)
        clients, failed, seconds = self._alone(start, model, rounds)
        spent = {"federated": sum(line["seconds"] for line in lines), "local": seconds}
        facts: dict[str, Any] = {}
        if self._pools:
            _announce(f"one model trains on everybody's rows, steps: {steps}", self._settings)
            pooled = Pooled(self._settings, self._shared)
            spent["central"] = self._central(pooled, start, steps, clients)
            facts["likeness"] = likeness(pooled, list(clients))
        metric = self._settings.task.metric
        facts |= {
            "metric": metric,
            "lower_is_better": metric in LOWER_IS_BETTER,
            "named": self._settings.partition.name == "natural",
            "local_rounds": rounds,
            "federated_steps": steps,
            "failed": failed,
            "seconds": spent,
            "pooled": _pooled(self._objective, clients.values()),
            "clients": {name: _without_statistics(told) for name, told in clients.items()},
        }
        self._recorder.baselines(facts)

    def _start(self) -> ArrayRecord:
        """Return the model that the run started from."""
        return checkpoint.to_arrays(initial_state(self._settings, self._task.spec(self._shared)))

    @property
    def _pools(self) -> bool:
        return (
            self._settings.federation.engine is not Engine.remote
            and self._settings.baselines.centralised is not False
        )

    def local_rounds(self, done: int) -> int:
        """Return how many rounds a client trains alone: by default as many as it has on average."""
        told = self._settings.baselines.local_rounds
        return told or max(1, math.ceil(done * self._settings.federation.fraction))

    def federated_steps(self, lines: Sequence[Mapping[str, Any]]) -> int:
        """Return the gradient steps of all clients in all rounds together.

        Where it is secret who took part, as many as on average.
        """
        steps = {
            client: self._settings.train.steps_on(self._roster.members[client].train)
            for client in self._roster.trainable
        }
        expected = round(sum(steps.values()) * self._settings.federation.fraction)
        return sum(
            expected if line.get("secret") else sum(steps.get(c, 0) for c in line["answered"])
            for line in lines
        )

    def _alone(
        self, start: ArrayRecord, federated: ArrayRecord, rounds: int
    ) -> tuple[dict[str, dict[str, Any]], dict[str, str], float]:
        started = time.monotonic()
        told = ConfigRecord({"rounds": rounds})
        content = RecordDict({"start": start, "federated": federated, "config": told})
        timeout = self._settings.federation.timeout * rounds
        answers = self._grid.ask(KIND, dict.fromkeys(self._clients, content), timeout)
        usual = {kind: usual_shape(_parts(answers.values(), kind)) for kind in _KINDS}
        clients: dict[str, dict[str, Any]] = {}
        failed: dict[str, str] = {}
        for client, answer in sorted(answers.items()):
            try:
                if isinstance(answer, str):
                    raise InvalidAnswerError(answer)
                clients[client] = self._taken(client, answer, rounds, usual)
            except InvalidAnswerError as error:
                failed[client] = str(error)
        if not clients:
            raise FedproofError(f"no client could train alone ({reasons(failed)}).")
        metric = self._settings.task.metric
        if not any(metric in c["federated"] and metric in c["local"] for c in clients.values()):
            raise FedproofError(
                f"no client tells its {metric}, by which to compare: give a task.metric that their "
                "held-out rows define, and that the silos' policies let out."
            )
        return clients, failed, round(time.monotonic() - started, 3)

    def _taken(
        self, client: str, answer: RecordDict, rounds: int, usual: Mapping[str, Shape]
    ) -> dict[str, Any]:
        """Check a client's answer and return it as plain values."""
        member = self._roster.members[client]
        result: dict[str, Any] = {"train": member.train, "test": member.test, "statistics": {}}
        try:
            for kind in _KINDS:
                part = _part(answer, kind)
                metrics = dict(check_metrics(part, member.test))
                rows = int(str(metrics.pop("num-examples")))
                result[kind] = metrics
                result["statistics"][kind] = fitting_statistics(
                    part, self._objective, usual[kind], rows
                )
            most = rounds * self._settings.train.steps_on(member.train)
            return result | _facts(answer["facts"], rounds, most)
        except InvalidAnswerError:
            raise
        except (KeyError, AssertionError, TypeError, ValueError):
            raise InvalidAnswerError("its comparison cannot be read") from None

    def _central(
        self, pooled: Pooled, start: ArrayRecord, steps: int, clients: dict[str, dict[str, Any]]
    ) -> float:
        started = time.monotonic()
        state = checkpoint.to_tensors(start)
        model = pooled.train(state, self._roster.trainable, max(steps, 1))
        for client, told in clients.items():
            result = pooled.evaluate(model, client)
            told["central"] = dict(result.metrics)
            told["statistics"]["central"] = result.statistics
        return round(time.monotonic() - started, 3)


def _announce(text: str, settings: Settings) -> None:
    """Tell whoever watches what happens after the last round."""
    announce(
        {"event": "stage", "text": text},
        log_lines=settings.federation.engine is not Engine.local,
    )


def _pooled(
    objective: Objective, clients: Iterable[Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """Return the metrics of all held-out rows together, by kind of model."""
    sums: dict[str, Statistics] = {}
    for told in clients:
        for name, statistics in told["statistics"].items():
            sums[name] = add(sums.get(name, {}), statistics)
    return {name: dict(objective.pooled(total)) for name, total in sums.items()}


def _without_statistics(told: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in told.items() if key != "statistics"}


def _part(answer: RecordDict, kind: str) -> RecordDict:
    """Return what an answer says of one kind of model, as an evaluation would."""
    return RecordDict({"metrics": answer[kind], "statistics": answer[f"{kind}-statistics"]})


def _parts(answers: Iterable[RecordDict | str], kind: str) -> Iterator[RecordDict]:
    for answer in answers:
        with suppress(LookupError):
            if not isinstance(answer, str):
                yield _part(answer, kind)


def _facts(record: Any, rounds: int, most: int) -> dict[str, Any]:
    """Return how a client trained: in so many rounds, at most so many steps."""
    assert isinstance(record, ConfigRecord)
    curve, steps = record["curve"], _finite(record["steps"])
    assert isinstance(curve, list)
    alignment = _finite(record["alignment"])
    if len(curve) > rounds or not 0 <= steps <= most or abs(alignment) > _COSINE:
        raise InvalidAnswerError("what it tells of its training is not possible")
    return {
        "alignment": alignment,
        "steps": int(steps),
        "curve": [round(_finite(value), 5) for value in curve],
    }


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(value)
    return float(value)
