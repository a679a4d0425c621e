"""Typed settings: what the YAML files of this folder may say.

Groups with ``options`` are open (`conf.groups`): whatever further keys their YAML file declares
lands there, and an override must keep the type of the declared value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from conf.comparison import BaselinesConfig, LinkConfig
from conf.groups import (
    AggregationConfig,
    AttackConfig,
    CompressionConfig,
    DefenceConfig,
    Group,
    ModelConfig,
    PartitionConfig,
    PersonalizationConfig,
    PrivacyConfig,
    SamplingConfig,
    StrategyConfig,
    TrackingConfig,
)
from conf.matrix import MatrixConfig


class Scaling(Enum):
    """Whose statistics standardise the features; pooled data is never one of them."""

    none = "none"
    local = "local"
    federated = "federated"


class Engine(Enum):
    """What carries messages between ServerApp and ClientApps."""

    local = "local"
    flower = "flower"
    remote = "remote"


class Select(Enum):
    """Which model a run ends with: that of the last round, or of the best evaluation."""

    last = "last"
    best = "best"


class Vectorize(Enum):
    """Whether clients of one process train at once, as rows of one matrix."""

    auto = "auto"
    on = "on"
    off = "off"


class Device(Enum):
    """Where clients train: ``auto`` is the GPU where there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Optimizer(Enum):
    """Local optimiser, by its name in `torch.optim`."""

    sgd = "sgd"
    adam = "adam"
    adamw = "adamw"


@dataclass
class TaskConfig(Group):
    """What is learned, and from which data.

    Attributes
    ----------
    name : str
        Module under `task.tasks`.
    dataset : str or None
        Which of the task's data sets, where it knows several.
    path : str or None
        Data on this machine's disk instead of the embedded sample. A SuperNode's own
        ``--node-config 'data="..."'`` goes before it.
    target, client : str or None
        Columns of the user's own table (`tabular`).
    test_fraction : float
        Share of each client's rows held out, where the data set has no official split.
    scaling : Scaling
        Standardisation of the features.
    metric : str
        Headline metric: progress, best model, early stopping.
    """

    name: str = MISSING
    dataset: str | None = None
    path: str | None = None
    target: str | None = None
    client: str | None = None
    test_fraction: float = 0.25
    scaling: Scaling = Scaling.none
    metric: str = "accuracy"


@dataclass
class TrainConfig:
    """Local training at one client in one round.

    ``steps`` (local updates) replaces ``epochs`` when given. ``threads`` are torch threads per
    process: one, because as many processes as cores train faster than threads do.
    ``keep_optimizer`` lets each client go on with the momentum, or Adam's moments, with which its
    last round ended; it keeps them in files of its own.
    """

    epochs: int = 1
    steps: int | None = None
    batch_size: int = 32
    lr: float = 0.1
    optimizer: Optimizer = Optimizer.sgd
    momentum: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float | None = None
    keep_optimizer: bool = False
    threads: int = 1
    device: Device = Device.auto

    def steps_on(self, rows: int) -> int:
        """Return the steps of a round on so many rows."""
        return self.epochs * -(-rows // self.batch_size) if self.steps is None else self.steps


@dataclass
class FederationConfig:
    """Who takes part, and what carries the messages.

    Attributes
    ----------
    engine : Engine
        ``local`` in this process, ``flower`` a simulation by Flower on Ray, ``remote`` SuperNodes
        joined to a running SuperLink.
    clients : int or None
        Number of clients that a partition makes; with natural clients, the first so many.
    fraction, fraction_evaluate : float
        Share of the clients sampled for training and for evaluation in a round.
    min_clients : int
        Fewest valid answers that a round needs.
    retries : int
        How often a round below `min_clients` is tried again, with a fresh cohort.
    timeout : float
        Seconds to wait for a round's answers.
    workers : int or None
        Processes of the local and flower engines; None: one per core. A Ray cluster has its own.
    nodes : int or None
        SuperNodes to wait for (remote) or to simulate (flower; None: `workers`).
    wait : float
        Seconds to wait for `nodes`.
    superlink : str or None
        Connection in Flower's configuration file (remote).
    port : int or None
        Port of the SuperLink that the flower engine starts; None: a free one.
    ray : str or None
        ``HOST:PORT`` of a Ray cluster that this machine is part of (flower); None: Ray is started
        on this machine for the run.
    vectorize : Vectorize
        Whether clients train several at once: ``auto`` decides by the model, or by measuring.
    max_examples : int
        A client that claims more training examples than this is excluded.
    """

    engine: Engine = Engine.local
    clients: int | None = None
    fraction: float = 1.0
    fraction_evaluate: float = 1.0
    min_clients: int = 1
    retries: int = 1
    timeout: float = 600.0
    workers: int | None = None
    nodes: int | None = None
    wait: float = 120.0
    superlink: str | None = None
    port: int | None = None
    ray: str | None = None
    vectorize: Vectorize = Vectorize.auto
    max_examples: int = 10_000_000


@dataclass
class StopConfig:
    """Early stopping: no better held-out ``metric`` for ``patience`` evaluations (0: never)."""

    patience: int = 0
    metric: str | None = None


@dataclass
class Settings:
    """Everything one run is told."""

    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    aggregation: AggregationConfig = field(default_factory=AggregationConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    personalization: PersonalizationConfig = field(default_factory=PersonalizationConfig)
    defence: DefenceConfig = field(default_factory=DefenceConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    compression: CompressionConfig = field(default_factory=CompressionConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)
    link: LinkConfig = field(default_factory=LinkConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    matrix: MatrixConfig = field(default_factory=MatrixConfig)
    rounds: int = 10
    seed: int = 42
    evaluate_every: int = 1
    checkpoint_every: int = 1
    select: Select = Select.last
    profile: bool = False
    compare: bool = False
    seeds: int | None = None
    resume: str | None = None
    evaluate: str | None = None
    run_dir: str | None = None
