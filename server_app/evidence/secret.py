"""What may be recorded of a run whose cohorts are secret: this list, and nothing else.

Poisson samples amplify privacy as long as nobody knows who was drawn, nor anything exact that
follows from it: how many were drawn, answered, failed or were not clipped, sums, bytes, seconds.
`Account.secret` says which runs that holds for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FILES = (
    "config.yaml", "run.json", "metrics.jsonl", "clients.jsonl", "summary.json", "outcome.json",
    "baselines.json", "comparison.json", "report.html", "model.safetensors",
    "checkpoint.safetensors", "population.jsonl", "population.jsonl.head", "population.jsonl.lock",
    "tensorboard/events.out.tfevents.*",
)  # fmt: skip
"""Files of a run directory. Clients' own state and ledgers are kept elsewhere, see `Site`."""
TRAINING: Mapping[str, Any] = {
    "train": {}, "sampled": [], "answered": [], "failed": {}, "secret": True,
}  # fmt: skip
"""What a line of ``metrics.jsonl`` says of training, beside ``privacy``."""
PRIVACY = (
    "unit", "relation", "accountant", "delta", "epsilon", "epsilon_most", "ledger_epsilon",
    "max_epsilon", "sigma", "clip", "secret",
)  # fmt: skip
"""What it says of privacy: settings, what they cost everybody, and the noised clip."""


def of_training(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may be recorded of a round's training: all of it, unless that is secret."""
    if not line.get("secret"):
        return dict(line)
    told = {name: line["privacy"][name] for name in PRIVACY if name in line["privacy"]}
    return {**TRAINING, "privacy": told}
