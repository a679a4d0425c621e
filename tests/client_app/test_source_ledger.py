"""Attacks on a silo's budget: other names, other tasks, copies of its data, older ledgers."""

import os
import shutil
import time

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from client_app.node import node_of
from client_app.site import site_of
from conf.compose import compose
from server_app.privacy import show_ledger
from task.arrays import array_of, record_of
from task.privacy import row_counts
from task.privacy.accounting import Spend
from task.privacy.composition import composed_epsilon
from task.privacy.ledger import Entry, Head, Ledger
from task.privacy.noise import SecureNoise
from task.privacy.row_counts import released_counts
from task.source import load_task
from tests.client_app.silo import Silo

POLICY = {"privacy": "record_dp", "max-epsilon": 2.0, "delta": 1e-5}
RUN = (
    "task=tabular task.target=ill task.kind=binary task.scaling=local privacy=record_dp "
    "privacy.sigma=2.0 train.steps=10 rounds=20 model=logistic task.columns=[x1,x2] "
    "task.categories.ill=[no,yes] task.metric=accuracy"
)


def rows(count=400, seed=0):
    rng = np.random.default_rng(seed)
    return [
        f"{rng.normal():.4f},{rng.normal():.4f},p{n % 3},q,{'yes' if rng.random() < 0.5 else 'no'}"
        for n, _ in enumerate(range(count))
    ]


def write(path, lines):
    path.write_text("".join(f"{line}\n" for line in ("x1,x2,a,b,ill", *lines)))
    return path


class Ward(Silo):
    """A silo with a table."""

    def __post_init__(self):
        self.folder.mkdir(exist_ok=True)
        super().__post_init__()
        self.data = write(self.folder / "ward7.csv", rows())
        self.rounds = 0

    def context(self, overrides):
        """The operator demands privacy in the node config, and leaves the run to name clients."""
        context = super().context(overrides)
        del context.node_config["policy"]
        context.node_config |= {**POLICY, **self.extra}
        return context

    @property
    def ledger(self):
        (path,) = (self.folder / "ledgers").glob("*.jsonl")
        return Ledger(path)

    def train(self, more="", run=7):
        """Return the silo's answer to the next round."""
        settings = f"{RUN} {more}".strip()
        listing = self.ask("query", settings).header
        if "refused" in listing:
            return listing["refused"], None
        clients = listing["clients"]
        shared = load_task(compose(tuple(settings.split()))).derive_shared()
        node = node_of(site_of(self.context(settings)))
        module = node.learner({"shared": shared}).model.module
        arrays = record_of({k: array_of(v.numpy()) for k, v in module.state_dict().items()})
        self.rounds += 1
        part = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": self.rounds})})
        answer = self.ask("train", settings, dict.fromkeys(clients, part), shared=shared)
        refused = answer.header.get("refused") or next(iter(answer.errors.values()), None)
        return refused, answer

    def exhaust(self, more=""):
        """Train until the silo refuses; return rounds."""
        for done in range(30):
            refused, _ = self.train(more)
            if refused is not None:
                assert "budget" in refused, (refused, self.last)
                return done
        raise AssertionError("a budget without end")


@pytest.fixture
def ward(tmp_path):
    return Ward(tmp_path / "silo")


def renamed(ward):
    ward.data = ward.data.rename(ward.data.with_name("cardiology.csv"))


def copied(ward):
    ward.data = write(ward.folder / "copy.csv", rows()[::-1])


def grown(ward):
    ward.data = write(ward.data, [*rows(), *rows(150, 1)])


def named(ward):
    ward.extra = {**ward.extra, "client": "another"}


def second_node(ward):
    """Another SuperNode of the same operator: a state, a log and a name of its own."""
    ward.extra = {**ward.extra, "client": "b", "state": "s2", "audit": str(ward.folder / "2.jsonl")}


@pytest.mark.parametrize("change", [renamed, copied, grown, named, second_node])
def test_another_name_for_the_same_rows_is_no_fresh_budget(ward, change):
    assert ward.exhaust() > 3
    change(ward)
    # Of a larger table a round costs less, so that one more may fit.
    assert ward.exhaust() <= (change is grown)
    assert composed_epsilon(ward.ledger.entries(), 1e-5) <= 2


@pytest.mark.parametrize(
    "more",
    ["task.client=a", "task.client=b", "task.columns=[x1]", "model=mlp", "seed=9"],
)
def test_another_run_of_the_same_rows_is_no_fresh_budget(ward, more):
    assert ward.exhaust() > 3
    assert ward.exhaust(more) == 0


def test_wards_of_one_column_are_charged_side_by_side(ward):
    """Three clients of disjoint rows cost what the dearest of them does."""
    assert ward.exhaust("task.client=a privacy.sigma=8") > 1
    entries = ward.ledger.entries()
    alone = [
        composed_epsilon([e for e in entries if e.client == client], 1e-5)
        for client in ("p0", "p1", "p2")
    ]
    assert composed_epsilon(entries, 1e-5) == max(alone) < 2


def snapshot(ward, *names):
    kept = ward.folder / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    for name in names:
        path = ward.folder / name
        copy = shutil.copytree if path.is_dir() else shutil.copy
        kept.mkdir(exist_ok=True)
        copy(path, kept / name)

    def put_back():
        for name in names:
            path = ward.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            (kept / name).rename(path)

    return put_back


@pytest.mark.parametrize("grows", [False, True])
def test_an_older_ledger_put_back_is_refused(ward, grows):
    assert ward.train()[0] is None
    put_back = snapshot(ward, "ledgers")
    assert ward.train()[0] is None
    put_back()
    if grows:
        grown(ward)
    refused, _ = ward.train()
    assert "records" in refused
    assert "an older one was put back" in ward.last.reason


def test_a_lost_ledger_is_refused(ward):
    assert ward.train()[0] is None
    shutil.rmtree(ward.folder / "ledgers")
    refused, _ = ward.train()
    assert "records" in refused and "does not go on from the entry" in ward.last.reason


def test_a_head_kept_elsewhere_shows_a_ledger_and_a_log_put_back_together(ward, capsys):
    log = ("ledgers", "audit.jsonl", "audit.jsonl.head")
    assert ward.train()[0] is None
    put_back = snapshot(ward, *log)
    refused, answer = ward.train()
    assert refused is None
    head = answer.parts["ward7"]["privacy"]["ledger-head"]
    ward.extra = {"ledger-head": head}
    assert ward.train()[0] is None
    show_ledger.main([str(ward.ledger.path), "--expect", head])
    assert Head.read(head).number < len(ward.ledger.entries())
    assert ward.ledger.head().digest not in capsys.readouterr().out
    put_back()
    refused, _ = ward.train()
    assert "records" in refused and "that --node-config ledger-head knows" in ward.last.reason


def test_a_refusal_after_the_ledgers_line_is_in_the_log(ward, monkeypatch):
    assert ward.train()[0] is None
    monkeypatch.setattr("client_app.training.Training._alone", lambda *_: 1 / 0)
    before = ward.audit.ledgers()
    ward.train("privacy.sigma=2.5")
    assert ward.audit.ledgers() == before or ward.last.ledgers
    assert list(ward.audit.ledgers().values()) == [ward.ledger.head()]


def same_noise(monkeypatch):
    """Give every release the same noise, whoever makes it."""
    monkeypatch.setattr(os, "urandom", lambda size: b"k" * size)


def told(answer):
    part = answer.parts["ward7"]
    private = {k: v for k, v in part["privacy"].items() if k != "ledger-head"}
    return private, dict(part["metrics"]), answer.header


def test_two_silos_that_differ_by_a_row_tell_the_same_but_for_the_noised_count(
    tmp_path, monkeypatch
):
    same_noise(monkeypatch)
    found = []
    secret = b"s" * 32
    for number, count in enumerate((300, 301)):
        ward = Ward(tmp_path / str(number))
        ledgers = ward.folder / "ledgers"
        ledgers.mkdir()
        (ledgers / "source.key").write_bytes(secret)
        (ledgers / "source.key").chmod(0o600)
        ward.data = write(ward.data, rows(301)[:count])
        listing = ward.ask("query", RUN).header
        _, answer = ward.train()
        exact = node_of(site_of(ward.context(RUN))).source.size("ward7")
        found.append((listing, told(answer), ward.ledger.entries(), exact))
    (one, first, entries, size), (other, second, others, larger) = found
    moved = [after - before for before, after in zip(size, larger, strict=True)]
    assert sorted(moved) == [0, 1]
    for listing, exact in ((one, size), (other, larger)):
        assert (listing["train"][0], listing["test"][0]) != exact
    # What is told is the count's own release, moved by the row, and what follows from it.
    for name, step in zip(("train", "test"), moved, strict=True):
        assert other[name][0] - one[name][0] == step
    assert len(entries) == len(others) == 2
    public = [released_counts(each).train for each in (entries, others)]
    for count, (private, metrics, _) in zip(public, (first, second), strict=True):
        assert metrics["num-examples"] == count and private["rate"] == 32 / count
    if not moved[0]:
        assert first == second


def test_with_the_row_hidden_in_the_counts_noise_all_else_is_the_same(tmp_path, monkeypatch):
    """The coupling that the counts' noise pays for: whatever else is told is told alike."""
    same_noise(monkeypatch)
    monkeypatch.setattr(row_counts.RowCounts, "noised", lambda *_: row_counts.RowCounts(230, 70))
    monkeypatch.setattr(time, "time", lambda: 1e9)
    answers = []
    for count in (300, 301):
        ward = Ward(tmp_path / str(count))
        key = ward.folder / "ledgers" / "source.key"
        key.parent.mkdir()
        key.write_bytes(b"s" * 32)
        key.chmod(0o600)
        ward.data = write(ward.data, rows(301)[:count])
        listing = ward.ask("query", RUN).header
        _, answer = ward.train()
        part = answer.parts["ward7"]
        answers.append((listing, answer.header, dict(part["privacy"]), dict(part["metrics"])))
        assert part["metrics"]["num-examples"] == 230 and "ledger-head" in part["privacy"]
    assert answers[0] == answers[1]


def test_a_budget_that_an_earlier_version_kept_by_name_stays_spent(ward):
    old = Ledger(ward.folder / "ledgers" / "ward7-0123456789ab.jsonl")
    old.spend(Entry("record", Spend(2.0, 0.1, 80), {"round": 1}), lambda _: None)
    assert ward.exhaust() == 0
    assert ward.ledger.entries()[0].facts["carried"] == "ward7-0123456789ab:1"


def test_counts_are_released_once_for_each_state_of_the_data(ward):
    for _ in range(3):
        listing = ward.ask("query", RUN).header
    (entry,) = ward.ledger.entries()
    assert entry.spend == row_counts.SPEND
    assert released_counts([entry]).train == listing["train"][0]
    grown(ward)
    ward.ask("query", RUN)
    assert len(ward.ledger.entries()) == 2


def test_counts_that_the_budget_does_not_allow_are_not_told(tmp_path):
    ward = Ward(tmp_path / "silo", extra={"max-epsilon": 0.1})
    assert "budget" in ward.ask("query", RUN).header["refused"]


def test_the_mean_of_a_batch_is_by_the_public_count(ward, monkeypatch):
    """Were it by the exact count, that would be what turns the sum into what leaves."""
    monkeypatch.setattr(SecureNoise, "gaussian", lambda self, size, deviation: np.full(size, 50.0))
    node = node_of(site_of(ward.context(RUN)))
    train, test = node.source.size("ward7")
    listing = ward.ask("query", RUN).header
    assert (listing["train"], listing["test"]) == ([train + 50], [test + 50])
    mechanism = node.guard.privacy.mechanism("ward7", node.public_size("ward7").train)
    assert mechanism.rows == train + 50 and mechanism.rate == 32 / (train + 50)
