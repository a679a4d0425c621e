"""What a node knows before it looks at data: its operator's word, and the run's settings.

Importing this must not import torch: a SuperNode starts a process for each message, and most of
those of a secure sum are answered without any data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.supercore.utils import get_flwr_home

from client_app.marks import Marks
from client_app.secure.box import Place
from client_app.secure.requests import SecureClients
from client_app.secure.secagg import SecAggClients
from client_app.secure.trust import Trust
from conf.compose import compose, split_overrides
from conf.digest import code_digest, config_digest
from conf.errors import FedproofError
from conf.schema import Settings
from task.audit import AuditLog
from task.held_out import pin_split, split_key
from task.privacy.base import secret_cohorts
from task.privacy.policy import Policy
from task.privacy.source_index import SourceIndex, SourceState
from task.refusals import Refusal, RefusalError
from task.secagg.seat import Seat
from task.secure import Protection, protection_of
from task.secure.he import HE

SEEDED = "seed"
"""What ``held-out`` of a node config must be for that."""
_PLACES = ("data", "state", "ledger", "identity", "roster")


class Site:
    """A node as its operator and the run describe it.

    Parameters
    ----------
    settings : Settings
        Of the run.
    policy : Policy
        Of the operator.
    places : tuple of Path or None
        Where its data are, where its clients keep what they keep and their ledgers, its identity
        key, and its roster.
    name : str or None
        Of its one client.
    share : (int, int)
        Without data of its own: it serves every so manieth client, from which one on.
    seeded_split : bool
        Whether the run's seed draws the held-out rows even though the data are its own: to
        compare a silo with a simulation, on rows that need no protection.

    Raises
    ------
    FedproofError
        If the policy does not allow the run.
    """

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        places: tuple[Path | None, ...],
        name: str | None,
        share: tuple[int, int],
        *,
        seeded_split: bool = False,
    ) -> None:
        policy.require(settings)
        self.settings, self.policy = settings, policy
        self.seeded_split = seeded_split
        self.name, self.share = name, share
        self.data, *kept, identity, roster = places
        # A silo's disk is not the server's to choose a place on.
        told = settings.run_dir if self.data is None else None
        base = _simulated_place(settings, Path(told)) if told else None
        self.state, self.ledgers = (
            place or (base / folder if base else get_flwr_home() / f"fedproof-{folder}")
            for place, folder in zip(kept, ("clients", "ledgers"), strict=True)
        )
        self._source: SourceState | None = None
        self.digests = {"config": config_digest(settings), "code": code_digest()}
        self._trust = Trust(
            self.state / "identities", identity, roster, simulated=self.data is None
        )

    @cached_property
    def sources(self) -> SourceIndex:
        """The data sources whose ledgers lie where this node's do."""
        return SourceIndex(self.ledgers)

    @property
    def source_state(self) -> SourceState:
        """Which data source the silo's data are, and their state; cheap unless they changed.

        Raises
        ------
        FedproofError
            If they cannot be read, or what lies beside the ledgers is not whole.
        """
        assert self.data is not None, "only silos have a data source"
        # Other files make another site; but a source may be joined to another one.
        if self._source is None or not self.sources.knows(self._source.source):
            self._source = self.sources.find(self.data)
        return self._source

    @property
    def source_id(self) -> str:
        """Id of the silo's data source: the same for copies, other names, orders and growth."""
        return self.source_state.source

    @property
    def source_secret(self) -> bytes:
        """The silo's secret key of 256 bits, kept beside its ledgers."""
        return self.sources.secret

    @property
    def split_key(self) -> bytes | None:
        """Key by which the silo holds rows out; None where the run's seed draws them."""
        if self.data is None or self.seeded_split:
            return None
        return split_key(self.source_secret)

    def pin_split(self, rule: str) -> None:
        """Refuse a private run that holds out other rows than those before it did.

        Raises
        ------
        FedproofError
            Then.
        """
        if self.data is not None and self.settings.privacy.name != "none":
            pin_split(self.ledgers / f"{self.source_id}.split", rule)

    @cached_property
    def protection(self) -> Protection | None:
        """What hides the clients' answers from the server."""
        return protection_of(self.settings)

    def check(self, digests: Mapping[str, Any]) -> None:
        """Refuse a server that runs other code or other settings.

        Parameters
        ----------
        digests : mapping of str to object
            Of ``config`` and ``code``, as the server says it has them.

        Raises
        ------
        RefusalError
            Then.
        """
        for kind, mine in self.digests.items():
            if digests.get(kind) != mine:
                raise RefusalError(
                    Refusal.version,
                    f"this node runs other {kind} than the server ({kind} digest {mine[:12]}, "
                    f"the server's {str(digests.get(kind))[:12]}): bring both to the same version.",
                )

    @property
    def protected(self) -> bool:
        """Whether the run hides or noises what clients send."""
        return self.protection is not None or self.settings.privacy.name != "none"

    def marks(self, run: str) -> Marks:
        """Return what the silo's data were asked for in a run."""
        return Marks(self.ledgers / "marks" / self.source_id, run)

    def secure(self, run: str) -> SecureClients | None:
        """Return the clients' part in the secure sums of a run, if it has them.

        Parameters
        ----------
        run : str
            Flower's id of it: what the server calls it besides decides nothing here.

        Raises
        ------
        FedproofError
            If the node cannot take part in them.
        """
        if self.protection is None:
            return None
        place = Place(self.state / "secrets", run, self.digests["config"])
        place.bind()
        if isinstance(self.protection, HE):
            from client_app.secure.he import HEClients

            return HEClients(self.protection, self._trust, place)
        return SecAggClients(self.protection, self._trust, place, self._settle)

    def _settle(self, client: str, seat: Seat, contributors: int) -> None:
        if self.settings.privacy.name == "distributed_dp":
            from client_app.guard import Guard

            Guard(self).settle(client, seat, contributors)


def audit_of(config: Mapping[str, Any]) -> AuditLog | None:
    """Return the audit log of a node config; None for a node that only simulates."""
    if "audit" in config:
        return AuditLog(Path(str(config["audit"])).expanduser())
    return AuditLog(get_flwr_home() / "fedproof-audit.jsonl") if "data" in config else None


def site_of(context: Context) -> Site:
    """Return the site for a Flower context; processes keep it between messages.

    Reads from the run config ``overrides``; from the node config ``data`` and ``client`` (the
    silo's own data and name) or ``partition-id`` and ``num-partitions`` (a simulated node);
    ``state`` and ``ledger`` (where its clients keep what they keep, and their privacy ledgers);
    ``audit`` (its audit log, see `audit_of`);
    ``identity`` and ``roster`` (the clients' signing key, and those of all clients that they know);
    ``policy`` (a file), ``privacy``, ``placement``, ``max-epsilon``, ``delta``, ``aggregation``,
    ``min-cohort`` and ``threshold`` (`Policy`); ``held-out="seed"`` lets the run's seed draw the
    held-out rows, for tests of a silo against a simulation. Files that have changed make another
    site.
    """
    config = context.node_config
    places = tuple(
        None if key not in config else Path(str(config[key])).expanduser() for key in _PLACES
    )
    site = _site(
        split_overrides(str(context.run_config.get("overrides", ""))),
        Policy.of(config),
        places,
        None if "client" not in config else str(config["client"]),
        (int(config.get("partition-id", 0)), int(config.get("num-partitions", 1))),
        seeded_split=config.get("held-out") == SEEDED,
        stamps=tuple(_stamp(path) for path in (places[0], *places[3:]) if path is not None),
    )
    simulated = "partition-id" in config and site.data is None
    if site.settings.attack.name != "none" and not simulated:
        raise FedproofError(
            f"attack={site.settings.attack.name} is for simulated clients, and this node is a "
            "silo's: nothing is trained."
        )
    return site


def _simulated_place(settings: Settings, run_dir: Path) -> Path:
    """Return where a simulation's clients keep what they keep: in the run's directory.

    Where cohorts are secret, it is not for those who may see that directory: names of files alone
    tell who was drawn.
    """
    if not secret_cohorts(settings):
        return run_dir
    digest = hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:16]
    return get_flwr_home() / "fedproof-simulated" / digest


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a file does, or one in a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [(file.name, file.stat()) for file in files if file.exists()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


@lru_cache(maxsize=8)
def _site(
    overrides: tuple[str, ...],
    policy: Policy,
    places: tuple[Path | None, ...],
    name: str | None,
    share: tuple[int, int],
    *,
    seeded_split: bool,
    stamps: tuple[object, ...],
) -> Site:
    return Site(compose(overrides), policy, places, name, share, seeded_split=seeded_split)
