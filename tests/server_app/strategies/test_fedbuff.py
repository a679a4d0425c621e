"""Asynchronous aggregation does not go with what takes answers for changes of the present model."""

import pytest

from conf.errors import FedproofError


@pytest.mark.parametrize(
    "chosen", ["compression=int8", "defence=norm_clip", "attack=alie", "personalization=ditto"]
)
def test_what_fedbuff_cannot_be_combined_with(chosen, federate):
    with pytest.raises(FedproofError, match="leave one of them out"):
        federate(
            "strategy=fedbuff", "strategy.buffer=2", "strategy.concurrency=2", chosen, "rounds=2"
        )
