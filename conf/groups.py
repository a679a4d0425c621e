"""Groups that are open: a new choice is a module and a YAML file, and needs no change here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class Group:
    """One choice of a group.

    Attributes
    ----------
    name : str
        A module of the group's package.
    options : dict
        What else the choice's YAML file declares.
    """

    name: str = "none"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class ModelConfig(Group):
    """Architecture: a module under `task.models`."""

    name: str = MISSING


@dataclass
class PartitionConfig(Group):
    """How rows become clients; ``show`` writes the label-distribution plot and stops."""

    name: str = MISSING
    show: bool = False


@dataclass
class StrategyConfig(Group):
    """Aggregation: a module under `server_app.strategies`."""

    name: str = MISSING


@dataclass
class PrivacyConfig(Group):
    """What protects clients or their records: a module under `task.privacy`."""


@dataclass
class AggregationConfig(Group):
    """What hides single answers from the server: a module under `task.secure`."""


@dataclass
class SamplingConfig(Group):
    """Who trains in a round: a module under `server_app.samplers`."""

    name: str = "uniform"


@dataclass
class PersonalizationConfig(Group):
    """What of the model is each client's own: a module under `task.personalization`."""


@dataclass
class DefenceConfig(Group):
    """What is done to updates before any strategy: a module under `server_app.defences`."""


@dataclass
class AttackConfig(Group):
    """What some simulated clients do to the federation: a module under `task.attacks`."""


@dataclass
class CompressionConfig(Group):
    """How models are shortened for the wire: a module under `task.compression`."""


@dataclass
class TrackingConfig(Group):
    """Where a run's figures also go: a module under `server_app.tracking`."""
