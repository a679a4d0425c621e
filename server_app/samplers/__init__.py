"""Who trains in a round: one module each, named as users type it, with ``build(settings)``."""

from __future__ import annotations

from conf.schema import Settings
from server_app.samplers._base import Sampler
from server_app.samplers._buffered import Buffered
from server_app.samplers._live import Live
from task.client_update.fedbuff import is_live
from task.registry import find

__all__ = ["Sampler", "sampler_of"]


def sampler_of(settings: Settings) -> Sampler:
    """Return who is asked to train.

    Raises
    ------
    FedproofError
        If its options are wrong, or the run hides what it looks at.
    """
    if settings.strategy.name == "fedbuff":
        return Live(settings) if is_live(settings) else Buffered(settings)
    sampler = find(__name__, settings.sampling.name).build(settings)
    assert isinstance(sampler, Sampler)
    return sampler
