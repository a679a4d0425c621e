"""Typed settings of ``compare=true``, and of the projection in every report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class BaselinesConfig:
    """What ``compare=true`` trains beside the federation.

    Attributes
    ----------
    local_rounds : int or None
        Rounds that each client trains alone; None: as many as a client trains in on average.
    centralised : bool or None
        Whether a model is trained on everybody's rows; None: where they are on this machine.
    unprotected : bool or None
        Whether a private run is repeated without privacy; None: where that shows nobody's rows.
    clients : int
        At most so many clients are compared.
    """

    local_rounds: int | None = None
    centralised: bool | None = None
    unprotected: bool | None = None
    clients: int = 200


@dataclass
class LinkConfig:
    """The user's own network, to which measured bytes are projected.

    Attributes
    ----------
    up_mbps, down_mbps : float
        Of one client, in megabits per second.
    latency_ms : float
        Of one way.
    clients : int or None
        In the federation; None: those of the run.
    """

    up_mbps: float = 10.0
    down_mbps: float = 50.0
    latency_ms: float = 40.0
    clients: int | None = None
