from __future__ import annotations

from pathlib import Path

import pytest

from conf import digest
from conf.compose import compose


def config(*overrides: str) -> str:
    return digest.config_digest(compose(overrides))


@pytest.mark.parametrize(
    "override",
    ["seed=43", "train.lr=0.2", "strategy=fedprox", "model.hidden=[8]", "federation.fraction=0.5"],
)
def test_what_changes_learning_changes_the_digest(override: str) -> None:
    assert config(override) != config()


@pytest.mark.parametrize(
    "override",
    ["rounds=99", "federation.workers=2", "federation=flower", "task.path=/elsewhere",
     "run_dir=/elsewhere", "stop.patience=3", "compare=true", "link.clients=9", "tracking=wandb"],
)  # fmt: skip
def test_where_and_how_long_does_not(override: str) -> None:
    assert config(override) == config()


def test_code_digest_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "task" / "a.py"
    source.parent.mkdir()
    source.write_text("x = 1")
    monkeypatch.setattr(digest, "__file__", str(tmp_path / "conf" / "digest.py"))
    before = digest.code_digest.__wrapped__()
    (tmp_path / "task" / "notes.txt").write_text("not code")
    assert digest.code_digest.__wrapped__() == before
    source.write_text("x = 2")
    assert digest.code_digest.__wrapped__() != before
