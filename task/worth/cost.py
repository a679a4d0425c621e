"""From measured bytes and seconds to somebody's own network, with the arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from conf.comparison import LinkConfig


@dataclass(frozen=True)
class Measured:
    """What a run took.

    Attributes
    ----------
    rounds : int
        Rounds with an answer.
    cohort : float
        Clients asked in a round, on average.
    clients : int
        Clients in the federation.
    down, up : float
        Bytes to and from one client in one round, evaluation included.
    seconds : float
        Of one client's computing in one round, at most: the round's, times the processes that
        shared it, over the cohort.
    """

    rounds: int
    cohort: float
    clients: int
    down: float
    up: float
    seconds: float


@dataclass(frozen=True)
class Step:
    """One line of the arithmetic: a name, the formula with its numbers, the value and its unit."""

    name: str
    formula: str
    value: float
    unit: str


def project(measured: Measured, link: LinkConfig) -> list[Step]:
    """Return what the same rounds take where clients are reached through `link`.

    Clients of a round work at the same time, each on its own line; the server's own line is not
    the bottleneck (its load is the last but one step).
    """
    clients = link.clients or measured.clients
    share = min(1.0, measured.cohort / max(measured.clients, 1))
    cohort = max(1.0, clients * share)
    trips = 2 * link.latency_ms / 1000
    down = measured.down * 8 / (link.down_mbps * 1e6)
    up = measured.up * 8 / (link.up_mbps * 1e6)
    each = trips + down + up + measured.seconds
    told = f"{each:.3g}" if each < 1000 else f"{each:,.0f}"
    load = cohort * (measured.down + measured.up)
    return [
        Step("latency of a round", f"2 × {link.latency_ms:g} ms", trips, "s"),
        Step("download", f"{measured.down:,.0f} B × 8 / {link.down_mbps:g} Mbit/s", down, "s"),
        Step("upload", f"{measured.up:,.0f} B × 8 / {link.up_mbps:g} Mbit/s", up, "s"),
        Step("computing, as measured here", "", measured.seconds, "s"),
        Step("a round takes", "sum of the above", each, "s"),
        Step("all rounds take", f"{measured.rounds:,} × {told} s", measured.rounds * each, "s"),
        Step("clients in a round", f"{clients:,} × {share:.3g}", cohort, "clients"),
        Step(
            "through the server, a round",
            f"{cohort:,.0f} × ({measured.down:,.0f} B + {measured.up:,.0f} B)", load, "B",
        ),
        Step(
            "through the server, all rounds",
            f"{measured.rounds:,} × {load:,.0f} B", measured.rounds * load, "B",
        ),
    ]  # fmt: skip
