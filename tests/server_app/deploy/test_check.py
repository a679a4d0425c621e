"""``fedproof deploy check``: what of a run is refused, by which rule, and what it would tell."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.data import hospitals
from conf.compose import compose
from conf.digest import settings_digest
from server_app.deploy import check, command
from server_app.deploy.disclosed import disclosures
from task.privacy.ledger import Ledger
from task.privacy.policy import Policy
from tests.client_app.silo import CLIENT, OPEN, Silo
from tests.server_app.deploy.test_deploy import federation
from tests.task.test_table_checks import NO_HEADER, people

TABLE = (
    "task=tabular", "task.target=ill", "task.kind=binary", "task.columns=[age]",
    "task.categories.ill=[no,yes]", "task.categories.ward=[a,b]", "task.scaling=local",
    "privacy=record_dp", "privacy.sigma=2", "privacy.evaluation=noised", "aggregation=secagg",
)  # fmt: skip


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(check.Check, "_server", lambda _: "not looked at")
    command.main(["init", str(federation(tmp_path, task="tabular"))])
    command.main(["key", str(tmp_path / "silos" / "a")])
    return tmp_path / "silos" / "a"


def said(kit: Path, data: Path, capsys: pytest.CaptureFixture[str], *run: str) -> str:
    capsys.readouterr()
    good = check.Check(kit, data, None, run or None).run()
    text = capsys.readouterr().out
    assert good == ("WRONG" not in text)
    return text


def table(folder: Path, **columns: object) -> Path:
    path = folder / "ward7.csv"
    frame = people().drop(columns=["name", "number"]).assign(**columns)
    frame["ward"] = ["a", "b"] * (len(frame) // 2)
    frame.to_csv(path, index=False)
    return path


def test_a_run_that_is_allowed_and_all_that_it_tells(kit, tmp_path, capsys):
    text = said(kit, table(tmp_path), capsys, *TABLE)
    assert "WRONG" not in text and settings_digest(compose(TABLE)) in text
    told = text.partition("it would tell the server\n")[2].partition("\nok")[0]
    assert [line.strip().partition(":")[0] for line in told.splitlines()] == [
        "names of clients", "numbers of rows", "columns, categories", "updates of the model",
        "figures of held-out rows",
    ]  # fmt: skip
    assert "'a'" in told and "nothing: the run declares them" in told and "secagg only" in told


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("privacy=none", "demands privacy=record_dp"),
        ("aggregation=none", "demands aggregation=secagg"),
        ("aggregation.adversary=semi_honest", "demands aggregation.adversary=active"),
        ("aggregation.threshold=0.5", "demands threshold=0.66"),
        ("task.client=ward", "policy, client"),
        ("task.test_fraction=0.9", "policy, held_out"),
        ("rounds=1000", "policy, limits.rounds"),
        ("profile=true", "policy, protection"),
        ("task.kind=auto", "task.kind=auto tells sums"),
        ("task.columns=[height]", "no column 'height'"),
        ("task=healthcare", "policy, tasks"),
    ],
)
def test_the_rule_that_refuses_is_named(kit, tmp_path, capsys, override, reason):
    run = tuple(o for o in TABLE if o.partition("=")[0] != override.partition("=")[0])
    if override.endswith("=none"):
        run = tuple(o for o in run if not o.startswith(override.partition("=")[0]))
    if override == "task=healthcare":
        run = ()
    assert reason in said(kit, table(tmp_path), capsys, *run, override)


def test_columns_that_the_policy_does_not_name(kit, tmp_path, capsys):
    policy = kit / "policy.yaml"
    policy.write_text(policy.read_text().replace("columns: []  ", "columns: [ward, ill]"))
    assert "policy, columns: the run would use ['age']" in said(
        kit, table(tmp_path), capsys, *TABLE
    )


@pytest.mark.parametrize("case", NO_HEADER)
def test_a_file_without_a_header_is_wrong(kit, tmp_path, capsys, case):
    path = tmp_path / "ward7.csv"
    path.write_text(NO_HEADER[case], encoding="utf-8")
    assert "WRONG  data:" in (text := said(kit, path, capsys, *TABLE))
    assert "first line looks like data" in text


def test_identifiers_are_wrong_until_the_policy_leaves_them_out(kit, tmp_path, capsys):
    path = table(tmp_path, name=people()["name"])
    assert "WRONG  data: 'name' has another value" in said(kit, path, capsys, *TABLE)
    policy = kit / "policy.yaml"
    policy.write_text(policy.read_text().replace("columns: []  ", "columns: [age, ward, ill]"))
    assert "WRONG" not in said(kit, path, capsys, *TABLE)
    policy.write_text(
        "tasks: [tabular]\nprivacy: {mechanism: any}\naggregation: {mechanism: any}\n"
    )
    text = said(kit, path, capsys, "task=tabular", "task.target=ill")
    assert "plain runs would tell all values of 'name': see task.drop" in text
    assert "column 'name': all its values" in text


def test_the_kits_experiment_is_allowed_by_its_policy(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(check.Check, "_server", lambda _: "not looked at")
    command.main(["init", str(federation(tmp_path))])
    kit = tmp_path / "silos" / "a"
    command.main(["key", str(kit)])
    text = said(kit, hospitals.main(tmp_path / "data")[0], capsys)
    assert "WRONG" not in text and "figures of held-out rows: with noise" in text


@pytest.mark.parametrize("name", ["ledgers", "state", "audit.jsonl", "."])
def test_what_others_may_read_is_wrong(kit, tmp_path, capsys, name):
    path = kit / name
    if name == "audit.jsonl":
        path.touch()
    else:
        path.mkdir(exist_ok=True)
    path.chmod(0o755)
    assert "keys: others may read" in said(kit, table(tmp_path), capsys, *TABLE)


@pytest.mark.parametrize(
    "run",
    ["", "task.scaling=federated",
     "privacy=record_dp privacy.sigma=2 task.scaling=local privacy.evaluation=noised",
     "aggregation=secagg task.scaling=local"],
)  # fmt: skip
def test_what_is_listed_is_what_is_told(tmp_path, run):
    """Against the answer of a silo's own ClientApp."""
    silo = Silo(tmp_path, OPEN)
    answer = silo.ask("query", run).header
    settings = compose(tuple(run.split()))
    policy = Policy.of(silo.context(run).node_config)
    listed = dict(disclosures(settings, policy, silo.data, None))
    assert listed["names of clients"] == f"'{CLIENT}'" == f"'{answer['clients'][0]}'"
    exact = len(pd.read_csv(silo.data, header=None))
    told = answer["train"][0] + answer["test"][0]
    if "whether" in listed["numbers of rows"]:
        assert told == 2
    elif "noise" in listed["numbers of rows"]:
        (ledger,) = (silo.folder / "ledgers").glob("*.jsonl")
        (entry,) = Ledger(ledger).entries()
        train, test = entry.facts["counts"]
        assert answer["train"] == [train]
        assert answer["test"] == [test]
    else:
        assert told == exact
    assert ("every feature" in listed) == ("count" in json.dumps(answer["describes"]))
