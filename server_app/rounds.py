"""The round loop: sample clients, train, aggregate, evaluate, record, checkpoint.

The loop is ours because `Strategy.start` cannot resume, stop early or tell clients apart; the
strategies are Flower's interface, called in Flower's order.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any

from flwr.app import ArrayRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from conf.digest import code_digest, config_digest
from conf.errors import FedproofError
from conf.schema import Settings
from server_app import checkpoint
from server_app.attacking import BackdoorProbe, client_grid
from server_app.comparison.baselines import Baselines
from server_app.defending import Screen
from server_app.evidence import secret
from server_app.evidence.facts import start_facts
from server_app.evidence.recorder import Recorder
from server_app.federation.roster import Roster
from server_app.federation.validation import finite
from server_app.lost import LostRounds
from server_app.phases import Phases
from server_app.privacy.curator import account_of
from server_app.profile import EXCHANGE, Profile
from server_app.samplers import sampler_of
from server_app.selection import Selection
from server_app.strategies._moving import acquaint
from server_app.vectorizing import choose_stack
from task.base import ModelSpec, Task
from task.device import CPU, device_of
from task.disclosure import is_protected
from task.flat import build_model
from task.objectives import Objective
from task.packing import packing_of
from task.personalization import initial_state
from task.witness import choose_network

log = logging.getLogger("flwr")


class RoundLoop:
    """One federated run, from the first round or from a checkpoint."""

    def __init__(
        self,
        settings: Settings,
        task: Task[Any],
        strategy: Strategy,
        grid: Grid,
        recorder: Recorder,
        *,
        sum_suffices: bool,
    ) -> None:
        self.settings = settings
        self.task = task
        self.strategy = strategy
        self.sum_suffices = sum_suffices
        self.recorder = recorder
        self.digests = {"config": config_digest(settings), "code": code_digest()}
        self.roster = Roster(settings.federation, self.digests)
        self.selection = Selection(settings)
        self.screen = Screen(settings, summed=sum_suffices)
        self.account = account_of(settings, recorder.directory, sum_suffices=sum_suffices)
        self.sampler = sampler_of(settings)
        self.done = 0
        self.seconds = 0.0
        self._physical = grid
        self._shared: dict[str, Any] | None = None
        self._stack: int | None = None
        self._checkpointed = 0
        self._lost = LostRounds(settings, self.account)
        self._lineage = [(secrets.token_hex(8), 0)]

    def run(self) -> ArrayRecord:
        """Run the rounds that are left; return the model that the run selects.

        Raises
        ------
        FedproofError
            If the federation cannot start, or a round fails for good; the last checkpoint and
            everything recorded so far stay as they are.
        """
        self.roster.gather(self._physical)
        arrays = self._resume() if self.settings.resume else None
        if self._shared is None:
            self._shared = self._agree()
        self.account.begin(self._lineage[0][0], self.roster)
        self.objective: Objective = self.task.objective(self._shared)
        if self._stack is None:
            rows = [self.roster.members[client].train for client in self.roster.trainable]
            self._stack = choose_stack(self.settings, self.task, self._shared, rows)
        spec = self._connect()
        if arrays is None:
            arrays = checkpoint.to_arrays(initial_state(self.settings, spec))
        started = start_facts(self.settings, self.roster, arrays)
        self.recorder.start(
            {
                **started,
                "done": self.done,
                "digests": self.digests,
                "clients_at_once": self._stack,
                "plain_torch": self._plain_torch(spec),
            },
            keep_rounds=self.done,
        )
        while self.done < self.settings.rounds and not self._stopped:
            arrays = self._round(self.done + 1, arrays)
        if not self.done:
            raise FedproofError("privacy.max_epsilon allows no round: raise it, or the noise.")
        chosen = self.selection.choose(arrays)
        if self.settings.compare:
            baselines = Baselines(self.settings, self.task, self.grid, self.roster, self.recorder)
            try:
                baselines.record(chosen)
            except FedproofError:
                # The run itself is done, and its model is not lost with the comparison.
                self.recorder.finish(chosen, self._summary_facts())
                raise
        self.recorder.finish(chosen, self._summary_facts())
        return chosen

    def _connect(self) -> ModelSpec:
        """Make what stands between the loop and its clients; return the model's shape."""
        assert self._shared is not None
        spec = self.task.spec(self._shared)
        header = {
            **self.digests, "shared": self._shared, "stack": self._stack, "lineage": self._lineage
        }  # fmt: skip
        packing = packing_of(self.settings, spec)
        self.grid = client_grid(self.settings, self._physical, self.roster, header, packing)
        self.backdoor = BackdoorProbe(self.settings, self.task, self._shared)
        self.phases = Phases(
            self.settings, self.grid, self.roster, self.account, str(self._physical.run.run_id),
            sampler=self.sampler, sum_suffices=self.sum_suffices,
        )  # fmt: skip
        model = build_model(self.settings, spec)
        acquaint(self.strategy, self.settings, model, self.roster, self.sampler)
        return spec

    def _plain_torch(self, spec: ModelSpec) -> str:
        """Return why clients train with torch's own layers, as all of them find; empty if not."""
        device = device_of(self.settings.train.device)
        network = choose_network(
            lambda: build_model(self.settings, spec), spec, self.objective, self.settings.train,
            device,
        )  # fmt: skip
        if network.reason and device == CPU:
            log.info("plain torch trains this model: %s", network.reason)
        return network.reason

    @property
    def _stopped(self) -> bool:
        return self.selection.stopped or self.account.exhausted

    def _round(self, number: int, arrays: ArrayRecord) -> ArrayRecord:
        started, down, up = time.monotonic(), self.grid.bytes_down, self.grid.bytes_up
        profile = Profile(self.grid, self.settings)
        self._clock = profile.clock
        with self._clock.stage("sampling"):
            self.roster.refresh(self._physical)
        arrays, line = self._train(number, arrays)
        if self.account.secret:
            # Bytes and seconds tell how many were drawn: what is counted is the evaluation.
            down, up = self.grid.bytes_down, self.grid.bytes_up
            started = time.monotonic()
        last = number == self.settings.rounds or self.account.exhausted
        if self.phases.evaluates(number, last=last):
            line |= self._evaluate(number, arrays) | self.backdoor.success(arrays)
            if "held_out" in line:
                self.selection.update(number, line["held_out"], arrays)
        elapsed = time.monotonic() - started
        self.seconds += elapsed
        if not self.account.secret:
            line |= profile.line(elapsed)
        line |= {
            "bytes_down": self.grid.bytes_down - down,
            "bytes_up": self.grid.bytes_up - up,
            "seconds": round(elapsed, 4),
        }
        self.done = number
        self.recorder.round({"round": number, **line})
        if number % self.settings.checkpoint_every == 0 or last or self._stopped:
            self._checkpoint(arrays)
        return arrays

    def _train(self, number: int, arrays: ArrayRecord) -> tuple[ArrayRecord, dict[str, Any]]:
        """Train one round; below ``min_clients`` valid answers, try again with a fresh cohort.

        A round of secure sums that was abandoned leaves the model as it is.
        """
        federation = self.settings.federation
        for attempt in range(self.phases.attempts):
            with self._clock.stage("sampling"):
                self.phases.gather(number, attempt)
            self.grid.header["checkpointed"] = self._checkpointed
            training = self.phases.training(number, self._clock)
            replies, answered, failed = training.run(
                self.strategy, number, arrays, federation.timeout
            )
            self._lost.count(number, training.abandoned, failed)
            if training.abandoned and not replies:
                return arrays, {"train": {}, **training.line(number, [], failed, 1)}
            if training.enough(replies, answered):
                break
        else:
            raise self._lost.too_few(number, len(answered), len(self.grid.cohort), failed)
        line = training.line(number, answered, failed, attempt + 1)
        with self._clock.stage("aggregation"):
            screened = self.screen.apply(number, arrays, replies, answered)
            updated, metrics = self.strategy.aggregate_train(number, screened)
        if updated is None:
            raise FedproofError(
                f"round {number}: strategy={self.settings.strategy.name} needs more valid answers "
                "than there were: raise federation.fraction or federation.clients."
            )
        line |= {"train": dict(metrics or {}), **self.screen.line(self.strategy)}
        return finite(number, updated, arrays), secret.of_training(line)

    def _evaluate(self, number: int, arrays: ArrayRecord) -> dict[str, Any]:
        """Evaluate on the clients' held-out rows: pooled from sums, weighted, per client."""
        evaluation = self.phases.evaluation(number, self.objective)
        with self._clock.stage(EXCHANGE):
            line = evaluation.run(self.strategy, number, arrays, self.settings.federation.timeout)
        with self._clock.stage("recording"):
            self.recorder.clients(evaluation.rows)
        return line

    def _agree(self) -> dict[str, Any]:
        if not self.roster.trainable:
            raise FedproofError("no client has training rows: lower task.test_fraction.")
        if is_protected(self.settings):
            return self.task.derive_shared()
        return self.roster.agreed(self.task.agree)

    def _checkpoint(self, arrays: ArrayRecord) -> None:
        tensors, tree = checkpoint.strategy_state(self.strategy)
        facts = {
            "round": self.done, "keys": list(arrays), "digests": self.digests, "strategy": tree,
            "shared": self._shared, "stack": self._stack, "lineage": self._lineage,
            "privacy": self.account.state(),
            "sampling": self.sampler.state(),
            "selection": self.selection.facts(),
            "totals": self.recorder.totals(),
            "seconds": self.seconds,
        }  # fmt: skip
        parts = {"model": checkpoint.to_tensors(arrays), "strategy": tensors}
        if self.selection.best is not None:
            parts["best"] = checkpoint.to_tensors(self.selection.best)
        self.recorder.checkpoint(checkpoint.prefixed(parts), facts)
        self._checkpointed = self.done

    def _resume(self) -> ArrayRecord:
        """Take up model, strategy, selection and totals where the checkpoint left them."""
        path = self.recorder.directory / checkpoint.CHECKPOINT
        tensors, facts = checkpoint.load(path)
        checkpoint.require_same(path, facts["digests"], self.digests)
        self.done, self.seconds = facts["round"], facts["seconds"]
        self._checkpointed = self.done
        self._lineage = [*facts["lineage"], (secrets.token_hex(8), self.done)]
        self._shared, self._stack = facts["shared"], facts["stack"]
        checkpoint.restore_strategy(
            self.strategy, checkpoint.under("strategy", tensors), facts["strategy"]
        )
        self.recorder.resume(facts["totals"])
        self.sampler.restore(facts["sampling"])
        self.account.restore(facts["privacy"])

        def model(prefix: str) -> ArrayRecord | None:
            part = checkpoint.under(prefix, tensors)
            # Files sort tensors their own way; strategies count on the model's order.
            return checkpoint.to_arrays({key: part[key] for key in facts["keys"]}) if part else None

        self.selection.restore(facts["selection"], model("best"))
        arrays = model("model")
        assert arrays is not None
        return arrays

    def _summary_facts(self) -> dict[str, Any]:
        return {
            "rounds": self.done,
            "clients": len(self.roster.members),
            "seconds": round(self.seconds, 3),
            **self.selection.summary(),
            "evaluation": self.account.evaluation_facts(),
            **self.phases.end(),
            **self.account.summary(),
        }
