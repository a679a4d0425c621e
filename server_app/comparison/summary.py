"""``comparison.json``: a comparison's verdict and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from server_app.comparison.measured import Compared, evidence_of, mean_likeness, read_seeds
from server_app.evidence import files
from task.worth.bootstrap import Interval, Values, interval
from task.worth.evidence import ClientVerdict, Evidence, client_means
from task.worth.fairness import fairness
from task.worth.verdict import Verdict, decide


def summarize(run_dir: Path) -> dict[str, Any] | None:
    """Weigh the seeds that are finished and write ``comparison.json``; None if there are none."""
    seeds = read_seeds(run_dir)
    if not seeds:
        return None
    evidence = evidence_of(seeds)
    facts = comparison_facts(evidence, decide(evidence), seeds)
    files.write_json(run_dir / files.COMPARISON, facts)
    return facts


def comparison_facts(
    evidence: Evidence, verdict: Verdict, seeds: Sequence[Compared]
) -> dict[str, Any]:
    """Return a verdict with what it rests on, as JSON."""
    models = {"federated": evidence.federated, "local": evidence.local}
    if evidence.central is not None:
        models["central"] = evidence.central
    if evidence.unprotected is not None:
        models["unprotected"] = evidence.unprotected
    sign, alignment = -1.0 if evidence.lower_is_better else 1.0, evidence.alignment
    return {
        "decision": verdict.decision.value,
        "centralise": verdict.centralise,
        "sentence": verdict.sentence,
        "metric": evidence.metric,
        "lower_is_better": evidence.lower_is_better,
        "named": evidence.named,
        "seeds": len(seeds),
        "gain": bounds(verdict.gain),
        "central_over_federated": bounds(verdict.central),
        "price_of_privacy": bounds(verdict.price),
        "models": {name: bounds(evidence.level(values)) for name, values in models.items()},
        "pooled": _pooled(seeds, evidence.metric),
        "fairness": {
            name: asdict(fairness(_scores(sign * values))) for name, values in models.items()
        },
        "label_divergence": evidence.divergence,
        "feature_shift": mean_likeness(seeds, "feature_shift"),
        "alignment": None if alignment is None else bounds(interval(alignment)),
        "local_rounds": seeds[0].baselines["local_rounds"],
        "federated_steps": seeds[0].baselines["federated_steps"],
        "seconds": _seconds(seeds),
        "clients": [_client(client) for client in verdict.clients],
    }


def bounds(value: Interval | None) -> dict[str, float | None] | None:
    """Return a mean and its interval, as JSON; None where there is no mean."""
    if value is None or not np.isfinite(value.mean):
        return None
    return {key: None if bound is None else round(bound, 5) for key, bound in asdict(value).items()}


def _client(client: ClientVerdict) -> dict[str, Any]:
    return {
        "client": client.name,
        "effect": client.effect,
        "warning": client.warning,
        "train": client.train_rows,
        "test": client.test_rows,
        **{k: bounds(getattr(client, k)) for k in ("gain", "federated", "local", "central")},
    }


def _scores(values: Values) -> Values:
    """Return the clients' means over the seeds, of those who have one."""
    means = client_means(values)
    return means[~np.isnan(means)]


def _pooled(seeds: Sequence[Compared], metric: str) -> dict[str, float]:
    names = seeds[0].baselines["pooled"]
    return {
        name: round(float(np.mean([s.baselines["pooled"][name][metric] for s in seeds])), 5)
        for name in names
    }


def _seconds(seeds: Sequence[Compared]) -> dict[str, float]:
    names = seeds[0].baselines["seconds"]
    return {
        name: round(float(np.mean([s.baselines["seconds"][name] for s in seeds])), 2)
        for name in names
    }
