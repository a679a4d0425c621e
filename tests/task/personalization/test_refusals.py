"""What does not go together is refused before anything starts, with the reason."""

import pytest

from conf.compose import compose
from conf.errors import FedproofError
from task.base import ModelSpec
from task.personalization import layout_of, personalization_of

DP = ("privacy=record_dp", "privacy.sigma=1.0", "task.scaling=local")
CLIENT = ("privacy=client_dp", "privacy.sigma=1.0", "task.scaling=local")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("personalization=fedrep", *DP), "beside a round's own training"),
        (("personalization=ditto", *DP), "beside a round's own training"),
        (("personalization=finetune", *DP), "beside a round's own training"),
        (("personalization=ifca", *DP), "beside a round's own training"),
        (("personalization=fedper", *CLIENT), "held-out figures of a model"),
        (("personalization=ifca", "aggregation=secagg"), "which model each client chose"),
        (("personalization=local", "aggregation=he"), "sends nothing for aggregation=he"),
        (("personalization=local", "strategy=fedadam"), "sends nothing for strategy=fedadam"),
        (("personalization=fedper", "select=best"), "keep nothing of their own from then"),
        (("personalization=fedrep", "train.weight_decay=0.1"), "leave train.weight_decay out"),
        (("personalization=apfl", "train.optimizer=adam"), "takes steps of SGD"),
        (("personalization=apfl", "personalization.alpha=1.5"), r"must lie in \[0, 1\]"),
        (("personalization=ditto", "personalization.lambda=-1"), "lambda must be at least 0"),
        (("personalization=ifca", "personalization.clusters=0"), "clusters must be at least 1"),
        (("personalization=finetune", "personalization.lr=0.0"), "must be positive"),
    ],
)
def test_settings(overrides, reason):
    with pytest.raises(FedproofError, match=reason):
        personalization_of(compose(overrides))


@pytest.mark.parametrize("name", ["fedper", "fedbn", "local"])
def test_what_trains_once_goes_with_noise_on_records(name):
    assert personalization_of(compose((f"personalization={name}", *DP))) is not None


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("personalization=fedbn",), "the model has none"),
        (("personalization=fedper", "personalization.layers=9"), "leaves nothing to share"),
    ],
)
def test_models(overrides, reason):
    with pytest.raises(FedproofError, match=reason):
        layout_of(compose(overrides), ModelSpec((5,), 1))
