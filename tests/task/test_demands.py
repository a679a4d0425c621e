"""No setting of a run weakens what a silo demands: each is bounded, refused, or known harmless."""

from __future__ import annotations

import pytest

from conf.compose import CONFIG_DIR, _all_keys, compose
from conf.errors import FedproofError
from task.client_update import update_of
from task.demands import DEMANDS, unmet_demands
from task.privacy.policy import Policy
from task.rules import RefusedError

RULED = {
    # By a rule of the policy file.
    "task.name": "tasks",
    "task.target": "columns",
    "task.columns": "columns",
    "task.drop": "columns",
    "task.categorical": "columns",
    "task.client": "client",
    "task.categories": "categories",
    "task.test_fraction": "held_out",
    "task.metric": "metrics.allowed",
    "rounds": "limits.rounds",
    "evaluate_every": "limits.evaluations",
    "train.epochs": "limits.epochs",
    "train.steps": "limits.steps",
    "privacy.name": "privacy.mechanism",
    "privacy.placement": "privacy.placement",
    "privacy.noise": "privacy.placement",
    "privacy.separation": "privacy.placement",
    "privacy.sigma": "privacy.max_epsilon",
    "privacy.epsilon": "privacy.max_epsilon",
    "privacy.delta": "privacy.delta",
    "privacy.evaluation": "privacy.mechanism",
    "aggregation.name": "aggregation.mechanism",
    "aggregation.adversary": "aggregation.adversary",
    "aggregation.identities": "aggregation.identities",
    "aggregation.min_cohort": "aggregation.min_cohort",
    "aggregation.groups": "aggregation.min_cohort",
    "aggregation.threshold": "aggregation.threshold",
}
CHECKED = {
    # By what the mechanism itself accepts, at the client: `mechanism_of`, `protection_of`,
    # `update_of`, `personalization_of`, and the type of what leaves.
    "task.scaling": "sums over rows are refused (task.disclosure)",
    "task.kind": "sums over targets are refused (task.disclosure)",
    "strategy.name": "what it sends beside the update is refused (update_of)",
    "personalization.name": "what uses rows without noise is refused (personalization_of)",
    "model.name": "examples must be independent, checked once per model",
    "compression.name": "secure sums refuse it; else it sees noised values only",
    "sampling.name": "figures for it are refused where noise protects (samplers)",
}
STRATEGY = (
    "alpha", "beta", "beta_1", "beta_2", "bias_correction", "buffer", "client_learning_rate",
    "clock", "concurrency", "epsilon", "eta", "malicious", "mu", "noise", "path", "proximal_mu",
    "q", "radius", "rows", "select", "server_learning_rate", "server_lr", "server_momentum",
    "smoothing", "speed_spread", "steps", "tau", "temperature", "weighting",
)  # fmt: skip
PERSONAL = ("adaptive", "alpha", "clusters", "head_epochs", "lambda", "layers", "lr", "steps")
COMPRESSION = ("bits", "block", "down", "error_feedback", "rank", "share")
HARMLESS = {
    # The ledger is charged with what they are; noise is made for them.
    "charged": ("privacy.clip", "privacy.clip_lr", "privacy.clipping", "privacy.quantile",
                "privacy.evaluation_share", "privacy.max_rows", "train.batch_size"),
    # They stop or print, and let nothing more out.
    "stops": ("privacy.max_epsilon", "privacy.plan", "partition.show", "select", "stop"),
    # How noised or masked values come about; what leaves is clipped and noised, or masked, anyway.
    "arithmetic": ("privacy.physical_batch", "seed", "model", "train.lr", "train.optimizer",
                   "train.momentum", "train.weight_decay", "train.max_grad_norm",
                   "train.keep_optimizer", "train.threads", "train.device",
                   *(f"strategy.{name}" for name in STRATEGY),
                   *(f"personalization.{name}" for name in PERSONAL),
                   *(f"compression.{name}" for name in COMPRESSION),
                   "aggregation.bits", "aggregation.range",
                   "aggregation.max_weight", "aggregation.rounding", "aggregation.scheme",
                   "aggregation.degree", "aggregation.per_slot", "aggregation.max_clients"),
    # Which format a silo's own rows are read as, each by itself.
    "format": ("task.dataset", "task.features", "task.split", "task.path"),
    # Made-up rows (task=synthetic) are nobody's.
    "made up": ("task.classes", "task.clients", "task.data_seed", "task.rows", "task.shape",
                "task.test_rows"),
    # The server's alone, or of simulations: a silo reads none of them.
    "server": ("federation", "sampling", "defence", "attack", "partition", "tracking", "baselines",
               "link", "matrix", "seeds", "resume", "evaluate", "run_dir", "checkpoint_every",
               "experiment", "hydra"),
}  # fmt: skip
PROTECTED = ("privacy=record_dp", "privacy.sigma=2", "aggregation=secagg", "task.scaling=local")
POLICY = "tasks: [healthcare, finance, keyboard, iot, vision]\n"


def verdict(key: str) -> str | None:
    """Return what keeps a setting from weakening protection; the longest name that covers it."""
    for name in (key, key.partition(".")[0]):
        if name in DEMANDS:
            return "demanded"
        found = RULED.get(name) or CHECKED.get(name)
        if found:
            return found
        for reason, names in HARMLESS.items():
            if name in names:
                return reason
    return None


def test_every_setting_is_classified():
    """A new setting fails here until somebody said what keeps it from weakening protection."""
    groups = {key.partition(".")[0] for key in _all_keys() if "." in key}
    unknown = [key for key in _all_keys() if key not in groups and verdict(key) is None]
    assert unknown == []


def test_nothing_is_classified_that_is_no_setting():
    known = {*_all_keys(), *(key.partition(".")[0] for key in _all_keys())}
    groups = {name for names in HARMLESS.values() for name in names}
    assert {*DEMANDS, *RULED, *CHECKED, *groups} - known == set()


def test_an_invented_setting_is_not_covered():
    assert verdict("privacy.backdoor") is None and verdict("task.leak") is None
    assert verdict("aggregation.weaker") is None and verdict("publish_rows") is None
    assert verdict("train.return_rows") is None and verdict("strategy.tell") is None


def policy(folder, text=POLICY):
    path = folder / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    return Policy.of({"policy": str(path), "data": "x"})


@pytest.mark.parametrize(
    ("task", "override"),
    [
        ("healthcare", "aggregation.corrupt=0.0"),
        ("healthcare", "aggregation.dropout=0.0"),
        ("healthcare", "profile=true"),
        ("healthcare", "attack=sign_flip"),
        ("finance", "task.min_rows=100"),
        ("finance", "task.min_rows=1 task.download=true"),
        ("keyboard", "task.length=1"),
    ],
)
def test_what_a_silo_demands_besides(tmp_path, task, override):
    told = (f"task={task}", *PROTECTED, *override.split())
    found = [str(refusal) for refusal in policy(tmp_path).refusals(compose(told))]
    assert len(found) == 1 and override.split()[-1].partition("=")[0] in found[0].replace(
        "attack.name", "attack"
    )
    with pytest.raises(RefusedError, match="policy, protection"):
        policy(tmp_path).require(compose(told))


@pytest.mark.parametrize(
    "told",
    [
        ("privacy=distributed_dp", "privacy.sigma=1", "aggregation=secagg", "privacy.colluders=0"),
        ("compare=true",),
    ],
)
def test_other_mechanisms_have_their_demands(told):
    assert len([*unmet_demands(compose(told))]) == 1


def test_who_demands_nothing_lets_runs_have_what_they_want(tmp_path):
    text = POLICY + "privacy: {mechanism: any}\naggregation: {mechanism: any}\n"
    anyone = policy(tmp_path, text)
    assert [*anyone.refusals(compose(("profile=true", "compare=true")))] == []
    assert [*Policy(aggregation="secagg").refusals(compose(("aggregation=secagg", "profile=true")))]


def test_the_demands_are_what_settings_are_by_default(tmp_path):
    """A run that sets nothing about them passes, except where a task's default is larger."""
    for task in ("healthcare", "keyboard", "iot", "vision"):
        settings = compose((f"task={task}", *PROTECTED))
        assert [*policy(tmp_path).refusals(settings)] == []


def test_no_strategy_sends_anything_beside_a_secure_sum():
    refused = set()
    for strategy in (path.stem for path in (CONFIG_DIR / "strategy").glob("*.yaml")):
        settings = compose((f"strategy={strategy}", "aggregation=secagg"))
        try:
            assert update_of(settings).sends == ()
        except FedproofError:
            refused.add(strategy)
    assert refused == {"scaffold"}


def test_scaffold_sends_nothing_beside_a_secure_sum():
    assert update_of(compose(("strategy=scaffold",))).sends
    for hidden in ("secagg", "he"):
        with pytest.raises(FedproofError, match=f"aggregation={hidden} hides"):
            update_of(compose(("strategy=scaffold", f"aggregation={hidden}")))


def test_all_demands_are_met_by_none_that_is_no_number():
    for name, demand in DEMANDS.items():
        assert not demand.allows(None) and not demand.allows(float("nan")), name
