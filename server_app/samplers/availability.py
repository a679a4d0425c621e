"""Only clients that are there: each is on and off in turns, by a pattern of its own."""

from __future__ import annotations

from collections.abc import Mapping

from conf.schema import Settings
from server_app.federation.sampling import size_of
from server_app.samplers._base import Sampler, require_no_secret
from task.options import real, whole
from task.seeding import generator


class Availability(Sampler):
    """Draws uniformly among those who are on.

    Parameters
    ----------
    settings : Settings
        With ``sampling.probability`` of being on, and ``sampling.period``: rounds after which a
        client's state is drawn again, at a time of its own.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        options = settings.sampling.options
        self._probability = real(options, "sampling.probability", positive=True, most=1)
        self._period = whole(options, "sampling.period", 1)

    def draw(
        self, rows: Mapping[str, int], fraction: float, number: int, attempt: int
    ) -> list[str]:
        """Draw a share of all clients, as far as so many are on; at least the likeliest one."""
        states = {client: self._state(client, number) for client in sorted(rows)}
        there = {c: 1.0 for c, state in states.items() if state < self._probability}
        there = there or {min(states, key=states.__getitem__): 1.0}
        return sorted(self._ordered(there, size_of(len(rows), fraction), "train", number, attempt))

    def _state(self, client: str, number: int) -> float:
        """Return a number in [0, 1) that stays the same for a period: below the probability, on."""
        shift = int(generator(self._seed, "shift", client).integers(self._period))
        block = (number + shift) // self._period
        return float(generator(self._seed, "available", client, block).random())


def build(settings: Settings) -> Sampler:
    """Build it."""
    require_no_secret(settings)
    return Availability(settings)
