from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

import conf.compose as module
from conf.compose import CONFIG_DIR, compose, compose_config, split_overrides
from conf.errors import FedproofError
from conf.schema import Engine, Optimizer, Scaling

GROUPS = (
    "model", "partition", "strategy", "federation", "sampling", "personalization", "defence",
    "compression", "tracking",
)  # fmt: skip


def refusal(*overrides: str) -> str:
    with pytest.raises(FedproofError) as caught:
        compose(overrides)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_defaults_are_the_four_hospitals() -> None:
    chosen = compose(())
    assert (chosen.task.name, chosen.model.name) == ("healthcare", "mlp")
    assert (chosen.partition.name, chosen.strategy.name) == ("natural", "fedavg")
    assert chosen.federation.engine is Engine.local


def test_values_are_typed() -> None:
    chosen = compose(("train.optimizer=adam", "task.scaling=federated", "train.lr=1"))
    assert chosen.train.optimizer is Optimizer.adam
    assert chosen.task.scaling is Scaling.federated
    assert isinstance(chosen.train.lr, float)


def test_options_of_open_groups_keep_the_type_of_their_default() -> None:
    chosen = compose(("strategy=fedprox", "strategy.proximal_mu=1"))
    assert chosen.strategy.options == {"proximal_mu": 1.0}
    assert isinstance(chosen.strategy.options["proximal_mu"], float)
    assert "expected float" in refusal("strategy=fedprox", "strategy.proximal_mu=much")
    assert "expected list" in refusal("model=mlp", "model.hidden=3")
    assert "expected bool" in refusal("strategy=fedadam", "strategy.bias_correction=1")


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_of_every_group_composes(group: str) -> None:
    for path in sorted((CONFIG_DIR / group).glob("*.yaml")):
        extra = ("federation.superlink=here",) if path.stem == "remote" else ()
        assert compose((f"{group}={path.stem}", *extra))


@pytest.mark.parametrize("group", ["task", "experiment"])
def test_every_task_and_experiment_composes(group: str) -> None:
    for path in sorted((CONFIG_DIR / group).glob("*.yaml")):
        assert compose((f"{group}={path.stem}",)) == compose((f"{group}={path.stem}",))


def test_an_experiment_is_overridden_by_the_command_line() -> None:
    assert compose(("experiment=flamby_heart", "rounds=2")).rounds == 2
    assert compose(("+experiment=flamby_heart",)).train.steps == 100


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("roundss=3", "did you mean 'rounds'"),
        ("model.hiden=[3]", "did you mean 'model.hidden'"),
        ("strategy.server_lr=1", "did you mean 'strategy.server_learning_rate'"),
        ("+task.colour=red", "no setting 'task.colour'"),
        ("task=cooking", "choose one of"),
        ("rounds=many", "rounds"),
        ("rounds=1.5", "rounds"),
        ("rounds=0", "at least 1"),
        ("federation.port=0", "must lie in [1, 65535], got 0"),
        ("federation.port=70000", "must lie in [1, 65535], got 70000"),
        ("train.lr=-1", "positive"),
        ("train.lr=nan", "positive"),
        ("train.optimizer=magic", "sgd"),
        ("federation.fraction=0", "(0, 1]"),
        ("task.test_fraction=1", "(0, 1)"),
        ("federation=remote", "superlink"),
        ("rounds=[1", "cannot read"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(override: str, says: str) -> None:
    assert says in refusal(override)


def test_impossible_combinations_are_refused() -> None:
    assert "min_clients" in refusal("federation.clients=2", "federation.min_clients=3")
    assert "exclude" in refusal("resume=a", "evaluate=b")


def test_composing_leaves_an_outer_hydra_alone() -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
        outer = GlobalHydra.instance().hydra
        assert outer is not None
        compose_config(())
        assert GlobalHydra.instance().hydra is outer


TOLD = (
    "strategy=fedprox", "task=iot", "experiment=poisoning", "model=cnn", "strategy.proximal_mu=1",
    "train.lr=0.5", "train.lr=2", "train={lr: 3, epochs: 1}", "model.hidden=[8,4]", "rounds=null",
    "task.path='a b'", 'run_dir="/x y"', "+strategy.more=1", "~train.momentum", "train.none=1",
    "seed=1,2", "train=3", "model.hidden=range(1,3)", "partition@p=iid", "rounds=abc",
)  # fmt: skip


def composed(how: Callable[..., DictConfig], told: Sequence[str]) -> object:
    """Return the configuration, or the sentence why there is none."""
    try:
        return OmegaConf.to_container(how(told))
    except FedproofError as error:
        return str(error)


def hydras(told: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """Compose by Hydra alone."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "_changed", lambda _: None)
        return composed(compose_config, told)


@pytest.mark.parametrize("told", TOLD)
def test_a_change_of_values_is_hydras(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert composed(compose_config, [told]) == hydras([told], monkeypatch)


def test_changes_of_values_are_hydras(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    for _ in range(20):
        told = draw.sample(TOLD[:14], 4)
        assert composed(compose_config, told) == hydras(told, monkeypatch), told


def test_who_changes_what_was_composed_changes_no_others() -> None:
    first = compose_config(["train.lr=1"])
    first.train.lr = 7
    first.model.hidden.append(9)
    assert compose_config(["train.lr=1"]).train.lr == 1
    assert 9 not in compose_config([]).model.hidden
    assert compose(()).train.lr == compose_config([]).train.lr


def test_overrides_are_split_as_by_a_shell() -> None:
    assert split_overrides("task=iot 'task.path=\"a b\"'") == ("task=iot", 'task.path="a b"')
    with pytest.raises(FedproofError, match="close it"):
        split_overrides("task='iot")


@given(st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_override_composes_or_is_refused_in_a_sentence(text: str) -> None:
    try:
        compose.__wrapped__((text,))
    except FedproofError as error:
        assert str(error)


def test_every_yaml_says_what_it_is() -> None:
    for path in Path(CONFIG_DIR).rglob("*.yaml"):
        assert path.read_text(encoding="utf-8").startswith("#"), path
