"""Combinations of settings that cannot work are refused before anything starts."""

from __future__ import annotations

import re

from conf.errors import FedproofError
from conf.schema import Engine, FederationConfig, Optimizer, Settings


def check(settings: Settings) -> None:
    """Refuse impossible values and combinations.

    Raises
    ------
    FedproofError
        With one sentence naming the setting and the mend.
    """
    _check_ranges(settings)
    federation = settings.federation
    if federation.engine is Engine.remote and not federation.superlink:
        raise FedproofError(
            "federation=remote needs federation.superlink=NAME, a connection in Flower's "
            "configuration file."
        )
    if federation.ray is not None:
        _check_ray(federation)
    if federation.clients is not None and federation.min_clients > federation.clients:
        raise FedproofError(
            f"federation.min_clients={federation.min_clients} can never be met by "
            f"federation.clients={federation.clients}: lower min_clients."
        )
    train = settings.train
    if train.keep_optimizer and train.optimizer is Optimizer.sgd and not train.momentum:
        raise FedproofError(
            "train.keep_optimizer=true has nothing to keep: give train.momentum, or "
            "train.optimizer=adam."
        )
    if settings.attack.name != "none" and federation.engine is Engine.remote:
        raise FedproofError(
            f"attack={settings.attack.name} is for simulations: nobody's own clients are attacked."
        )
    if settings.compression.name != "none" and settings.aggregation.name != "none":
        raise FedproofError(
            f"compression={settings.compression.name} makes updates that cannot be added up "
            f"unread, as aggregation={settings.aggregation.name} does: leave it out "
            "(aggregation.bits=16 halves the bytes of secagg)."
        )
    if settings.compare and settings.personalization.name != "none":
        raise FedproofError(
            "compare=true holds one model of all clients against others: leave personalization="
            f"{settings.personalization.name} out, whose runs report personal and global models "
            "side by side (personalization=local is every client alone)."
        )
    if settings.resume and settings.evaluate:
        raise FedproofError("resume= and evaluate= exclude each other: give one of them.")
    _check_comparison(settings)


def _check_comparison(settings: Settings) -> None:
    """Refuse comparisons that would tell what the run protects."""
    remote = settings.federation.engine is Engine.remote
    if not settings.compare:
        if settings.seeds is not None:
            raise FedproofError(
                "seeds= is how often compare=true repeats: add it, or sweep with -m seed=1,2,3."
            )
        return
    if settings.evaluate:
        raise FedproofError("compare=true trains, evaluate= does not: give one of them.")
    if settings.aggregation.name != "none":
        raise FedproofError(
            f"compare=true tells single clients' figures, which aggregation="
            f"{settings.aggregation.name} hides: compare with aggregation=none, whose model is the "
            "same within the error of the encoding."
        )
    if remote and settings.privacy.name != "none":
        raise FedproofError(
            "compare=true has clients tell how models do that they train alone, without noise, "
            f"which privacy={settings.privacy.name} does not cover: compare in a simulation."
        )
    if remote and settings.baselines.centralised:
        raise FedproofError(
            "baselines.centralised=true needs everybody's rows on one machine, and with "
            "federation=remote they stay with their clients: leave it out."
        )
    if remote and settings.baselines.unprotected:
        raise FedproofError("baselines.unprotected=true works in simulations only: leave it out.")


def _check_ray(federation: FederationConfig) -> None:
    if federation.engine is not Engine.flower:
        raise FedproofError("federation.ray=HOST:PORT works with federation=flower only.")
    if not re.fullmatch(r"[^\s/:]+:\d{1,5}", str(federation.ray)):
        raise FedproofError(
            f"federation.ray={federation.ray} is no HOST:PORT of a Ray cluster's first machine."
        )
    if federation.nodes is None:
        raise FedproofError(
            "federation.ray needs federation.nodes=N, how many simulated nodes share the clients: "
            "as many as the cluster has cores."
        )


def _check_ranges(settings: Settings) -> None:
    train, federation = settings.train, settings.federation
    at_least: tuple[tuple[str, float | None, float], ...] = (
        ("rounds", settings.rounds, 1),
        ("seed", settings.seed, 0),
        ("evaluate_every", settings.evaluate_every, 1),
        ("checkpoint_every", settings.checkpoint_every, 1),
        ("stop.patience", settings.stop.patience, 0),
        ("train.epochs", train.epochs, 1),
        ("train.steps", train.steps, 1),
        ("train.batch_size", train.batch_size, 1),
        ("train.threads", train.threads, 1),
        ("train.momentum", train.momentum, 0),
        ("train.weight_decay", train.weight_decay, 0),
        ("federation.clients", federation.clients, 1),
        ("federation.min_clients", federation.min_clients, 1),
        ("federation.retries", federation.retries, 0),
        ("federation.workers", federation.workers, 1),
        ("federation.nodes", federation.nodes, 1),
        ("federation.wait", federation.wait, 0),
        ("federation.max_examples", federation.max_examples, 1),
        ("seeds", settings.seeds, 1),
        ("baselines.local_rounds", settings.baselines.local_rounds, 1),
        ("baselines.clients", settings.baselines.clients, 1),
        ("link.latency_ms", settings.link.latency_ms, 0),
        ("link.clients", settings.link.clients, 1),
    )
    for name, value, least in at_least:
        # `not >=` also refuses NaN.
        if value is not None and not value >= least:
            raise FedproofError(f"{name} must be at least {least:g}, got {value:g}.")
    positive: tuple[tuple[str, float | None], ...] = (
        ("train.lr", train.lr),
        ("train.max_grad_norm", train.max_grad_norm),
        ("federation.timeout", federation.timeout),
        ("link.up_mbps", settings.link.up_mbps),
        ("link.down_mbps", settings.link.down_mbps),
    )
    for name, value in positive:
        if value is not None and not 0 < value < float("inf"):
            raise FedproofError(f"{name} must be positive and finite, got {value:g}.")
    shares = (
        ("federation.fraction", federation.fraction),
        ("federation.fraction_evaluate", federation.fraction_evaluate),
    )
    for name, share in shares:
        if not 0 < share <= 1:
            raise FedproofError(f"{name} must lie in (0, 1], got {share:g}.")
    if federation.port is not None and not 1 <= federation.port <= 65535:
        raise FedproofError(f"federation.port must lie in [1, 65535], got {federation.port}.")
    if not 0 < settings.task.test_fraction < 1:
        raise FedproofError(
            f"task.test_fraction must lie in (0, 1), got {settings.task.test_fraction:g}."
        )
