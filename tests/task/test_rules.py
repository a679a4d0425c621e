"""Policy files: typed, strict where silent, and the stricter of two counts."""

from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.compose import compose
from conf.digest import settings_digest
from conf.errors import FedproofError
from task.privacy.policy import Policy
from task.rules import LimitRules, RefusedError, Rules, read_rules, refusals


def write(folder, text):
    path = folder / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_left_out_is_strict(tmp_path):
    rules = read_rules(write(tmp_path, ""))
    assert rules == Rules() and not rules.tasks
    policy = Policy.of({"policy": str(write(tmp_path, "tasks: [healthcare]"))})
    with pytest.raises(FedproofError, match="demands privacy=record_dp"):
        policy.require(compose(()))
    with pytest.raises(FedproofError, match="demands aggregation=secagg"):
        policy.require(compose(("privacy=record_dp", "privacy.sigma=1")))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("taks: [a]", "no rule 'taks': did you mean 'tasks'"),
        ("limits: {round: 3}", "no rule 'limits.round': did you mean 'limits.rounds'"),
        ("privacy: {epsilon: 3}", "did you mean 'privacy.max_epsilon'"),
        ("limits: {rounds: 2.5}", "'limits.rounds' must be a whole number, got 2.5"),
        ("limits: {rounds: true}", "must be a whole number"),
        ("limits: {rounds: 0}", "more than 0"),
        ("privacy: {delta: 1}", "less than 1"),
        ("privacy: {max_epsilon: .nan}", "more than 0"),
        ("privacy: {max_epsilon: many}", "must be a number"),
        ("tasks: healthcare", "must be a list of names"),
        ("dry_run: 'no'", "must be true or false"),
        ("aggregation: {adversary: semi_honest}", "must be active or any"),
        ("aggregation: {identities: unverified}", "must be pinned or any"),
        ("privacy: {placement: here}", "must be local or central or any"),
        ("held_out: {most: 1.5}", "less than 1"),
        ("categories: [a]", "must be lines of 'COLUMN"),
        ("categories: {ward: [1]}", "must be a list of names in quotes"),
        ("quiet_hours: ['25:00-26:00']", "no time of the day"),
        ("quiet_hours: ['night']", "is no window"),
        ("- a", "must be a list of 'key: value' lines"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_what_is_no_rule(tmp_path, text, reason):
    with pytest.raises(FedproofError, match=reason.replace("[", r"\[")):
        read_rules(write(tmp_path, text))


def test_no_file(tmp_path):
    with pytest.raises(FedproofError, match="cannot be read"):
        Policy.of({"policy": str(tmp_path / "none")})


def test_the_stricter_of_both_wins(tmp_path):
    path = str(write(tmp_path, "privacy: {max_epsilon: 3, delta: 1e-6}\ntasks: [healthcare]"))
    policy = Policy.of({"policy": path, "max-epsilon": 5.0, "delta": 1e-7, "min-cohort": 2})
    assert (policy.max_epsilon, policy.delta, policy.min_cohort) == (3.0, 1e-7, 3)
    policy = Policy.of({"policy": path, "max-epsilon": 1.0, "threshold": 0.7, "min-cohort": 9})
    assert (policy.max_epsilon, policy.threshold, policy.min_cohort) == (1.0, 0.7, 9)
    with pytest.raises(FedproofError, match="make them agree"):
        Policy.of({"policy": path, "privacy": "client_dp"})


def test_any_bounds_the_runs_that_have_privacy(tmp_path):
    text = "tasks: [healthcare]\nprivacy: {mechanism: any, max_epsilon: 2}\n"
    path = write(tmp_path, text + "aggregation: {mechanism: any}")
    policy = Policy.of({"policy": str(path)})
    policy.require(compose(()))
    assert policy.max_epsilon == 2


SETTINGS = compose(())
TABLE = ("task=tabular", "task.target=ill", "task.client=ward")
OPEN = "tasks: [healthcare, tabular]\nprivacy: {mechanism: any}\naggregation: {mechanism: any}\n"


@pytest.mark.parametrize(
    ("more", "overrides", "rule"),
    [
        ("", ("task.test_fraction=0.6",), "held_out"),
        ("held_out: {least: 0.2}", ("task.test_fraction=0.1",), "held_out"),
        ("limits: {evaluations: 3}", ("rounds=7", "evaluate_every=2"), "limits.evaluations"),
        ("", TABLE, "client"),
        ("client: ward", TABLE[:2], "client"),
        ("client: doctor", TABLE, "client"),
        ("settings: [abc]", (), "settings"),
    ],
)
def test_what_a_run_may_not_choose(tmp_path, more, overrides, rule):
    policy = Policy.of({"policy": str(write(tmp_path, OPEN + more))})
    with pytest.raises(RefusedError, match=f"policy, {rule}: ") as refused:
        policy.require(compose(overrides))
    assert rule in refused.value.refusal


def test_approved_settings_pass_and_nothing_else_does(tmp_path):
    digest = settings_digest(compose(("rounds=3",)))
    policy = Policy.of({"policy": str(write(tmp_path, OPEN + f"settings: ['{digest}']"))})
    policy.require(compose(("rounds=3", "task.path=elsewhere", "federation.workers=1")))
    for more in ("rounds=4", "compare=true", "train.lr=0.2", "profile=true"):
        with pytest.raises(RefusedError, match="not among the approved"):
            policy.require(compose(("rounds=3", more)))


def test_a_column_of_clients_that_the_operator_named(tmp_path):
    policy = Policy.of({"policy": str(write(tmp_path, OPEN + "client: ward"))})
    policy.require(compose(TABLE))


@pytest.mark.parametrize("key", ["adversary", "identities"])
def test_a_silo_trusts_no_server_unless_its_operator_says_so(tmp_path, key):
    strict = str(write(tmp_path, ""))
    demanded = {"adversary": "active", "identities": "pinned"}[key]
    for config, expected in (
        ({"policy": strict}, demanded),
        ({"policy": strict, key: "any"}, demanded),
        ({"data": "x"}, demanded),
        ({"data": "x", key: "any"}, None),
        ({"partition-id": 0}, None),
    ):
        assert getattr(Policy.of(config), key) == expected
    (tmp_path / "open").mkdir()
    anyone = str(write(tmp_path / "open", f"aggregation: {{{key}: any}}"))
    assert getattr(Policy.of({"policy": anyone, "data": "x"}), key) is None
    assert getattr(Policy.of({"policy": anyone, key: demanded}), key) == demanded


def test_noise_of_the_server_protects_nobody_from_it(tmp_path):
    text = "tasks: [healthcare]\nprivacy: {mechanism: client_dp"
    central = ("privacy=client_dp", "privacy.sigma=1", "aggregation=secagg")
    strict = Policy.of({"policy": str(write(tmp_path, text + "}"))})
    with pytest.raises(FedproofError, match="demands privacy.placement=local"):
        strict.require(compose(central))
    for word in ("central", "any"):
        path = write(tmp_path, text + f", placement: {word}}}")
        Policy.of({"policy": str(path)}).require(compose(central))


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 20), st.integers(1, 20))
def test_a_run_passes_exactly_within_its_limits(rounds, most, epochs, most_epochs):
    limits = LimitRules(rounds=most, epochs=most_epochs)
    rules = Rules(tasks=("healthcare",), limits=limits)
    wanted = replace(SETTINGS, rounds=rounds, train=replace(SETTINGS.train, epochs=epochs))
    passed = not [*refusals(rules, wanted)]
    assert passed == (rounds <= most and epochs <= most_epochs)


def test_the_server_learns_the_rule_and_not_the_value():
    error = RefusedError("limits.rounds", "the run has rounds=900, at most 7")
    assert "limits.rounds" in error.refusal and "7" not in error.refusal


@pytest.mark.parametrize(
    ("window", "moment", "quiet"),
    [
        ("22:00-06:00", "2026-11-25 23:00", True),
        ("22:00-06:00", "2026-11-25 05:59", True),
        ("22:00-06:00", "2026-11-25 06:00", False),
        ("sat-sun 00:00-24:00", "2026-11-28 12:00", True),
        ("sat-sun 00:00-24:00", "2026-11-25 12:00", False),
        ("fri 22:00-06:00", "2026-11-28 05:00", True),
        ("fri 22:00-06:00", "2026-11-27 05:00", False),
        ("sun-mon 10:00-11:00", "2026-11-30 10:30", True),
    ],
)
def test_quiet_hours(window, moment, quiet):
    rules = Rules(quiet_hours=(window,))
    assert (rules.quiet(datetime.fromisoformat(moment)) == window) is quiet
