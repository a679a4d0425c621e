"""Sequences of messages as a server may send them: honest, lying, crafted and broken."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from conf.compose import compose, split_overrides
from server_app.secure.collected import Purpose
from server_app.secure.group import Group
from task.arrays import array_of, record_of
from task.identity import Identity
from task.layouts import Layout
from task.parcel import PARCEL, wrap
from task.secagg.client import Member
from task.secagg.session import Advert, FreshKeys
from task.secure import protection_of
from task.wire import VECTORS, Cohort
from tests.adversary.worlds import RUN, WEAKER, World, digests

LINEAGE = [["0123456789abcdef", 0]]
SUM_RUN = str(RUN) if find_spec("task.secure.kinds") else str(LINEAGE[0][0])
"""What a run is called in secure sums: Flower's id, and in older checkouts what servers say."""
Values = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Ask:
    """One message.

    Attributes
    ----------
    kind : str
        Of Flower's message types.
    content : RecordDict
    overrides : str
        Of the run that it belongs to.
    run : int
        That run, by Flower's own word.
    labels : tuple of str
        What is peculiar about it.
    """

    kind: str
    content: RecordDict
    overrides: str
    run: int = RUN
    labels: tuple[str, ...] = ()


Script = Generator[Ask, RecordDict, None]
"""Yields messages, and is sent the first silo's answers."""


@dataclass
class Server:
    """What a lying server knows: the run, the model, and, as the worst case, all rows but one.

    Attributes
    ----------
    world : World
    model : mapping of str to array
        Values of a fresh model.
    rows : (array, array)
        Both silos' features, which may differ in length.
    shared : mapping
        What clients agreed on.
    keys : mapping of str to Identity
        Of the other clients, who collude.
    opened : Group or None
        The last secure sum, if it was opened.
    """

    world: World
    model: Values
    rows: tuple[NDArray[np.float64], NDArray[np.float64]]
    shared: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, Identity] = field(default_factory=dict)
    opened: Group | None = None

    @property
    def client(self) -> str:
        return self.world.table.client

    def header(self, overrides: str, **more: Any) -> dict[str, Any]:
        return {**digests(overrides), "shared": dict(self.shared), "lineage": LINEAGE, **more}

    def script(self, rng: random.Random) -> Script:
        """Yield the messages of one sequence."""
        number = 1
        if rng.random() < 0.5:
            yield self.query(rng)
        for _ in range(rng.randint(1, 4)):
            if self.world.secure and rng.random() < 0.6:
                yield from self.secure_sum(rng, number)
            else:
                yield self.plain(rng, number)
            if rng.random() < 0.85:
                number += 1

    def query(self, rng: random.Random) -> Ask:
        overrides, run, labels = self._run(rng)
        content = Cohort(header=self.header(overrides)).pack()
        return Ask("query", content, overrides, run, labels)

    def honest(self, kind: str, number: int = 1) -> Ask:
        """Return what an honest server asks."""
        arrays = record_of({k: array_of(v) for k, v in self.model.items()})
        config = ConfigRecord({"server-round": number})
        part = RecordDict({"arrays": arrays, "config": config})
        content = Cohort({self.client: part}, header=self.header(self.world.run)).pack()
        return Ask(kind, content, self.world.run)

    def plain(self, rng: random.Random, number: int) -> Ask:
        """Return one message, honest or otherwise."""
        kind = rng.choices(
            ["train", "evaluate", "query", "query.secure", "evaluate.alone", "train.raw"],
            [10, 4, 1, 1, 1, 0.3],
        )[0]
        overrides, run, labels = self._run(rng)
        header, config, labels = self._words(rng, overrides, number, labels)
        arrays, told = self.crafted(rng)
        part = RecordDict({"arrays": arrays, "config": ConfigRecord(config)})
        labels = (*labels, *told)
        if rng.random() < 0.15:
            part[VECTORS] = record_of(
                {"drift": array_of(np.float32([rng.choice((1.0, 1e38, np.nan))]))}
            )
            labels = (*labels, "vectors")
        if kind == "evaluate.alone":
            part["federated"], part["start"] = arrays, arrays
        content = self._packed(rng, {self.client: part}, header)
        if rng.random() < 0.04:
            content, labels = _broken(rng, content), (*labels, "broken")
        return Ask(kind, content, overrides, run, labels)

    def _packed(
        self, rng: random.Random, parts: Mapping[str, RecordDict], header: Mapping[str, Any]
    ) -> RecordDict:
        if rng.random() < 0.03:
            parts = {**parts, "somebody else": next(iter(parts.values()))}
        content = Cohort(parts, header=header).pack()
        return wrap(content) if rng.random() < 0.1 else content

    def _run(self, rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
        if self.world.lenient or rng.random() < 0.88:
            return self.world.run, RUN, ()
        weaker = rng.choice(WEAKER)
        # Flower fixes a run's settings: other ones are another run.
        return f"{self.world.run} {weaker}", 100 + WEAKER.index(weaker), (f"run {weaker}",)

    def _words(
        self, rng: random.Random, overrides: str, number: int, labels: tuple[str, ...]
    ) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
        """Return header and settings of a message, with fields that lie."""
        header, config = self.header(overrides), {"server-round": number}
        while rng.random() < 0.3:
            name = rng.choice([*HEADER, *CONFIG])
            if name in HEADER:
                header[name] = rng.choice(HEADER[name])(self)
            else:
                config[name] = rng.choice(CONFIG[name])
            labels = (*labels, name)
        return header, config, labels

    def crafted(self, rng: random.Random) -> tuple[ArrayRecord, tuple[str, ...]]:
        """Return a model, and what is peculiar about it."""
        name = rng.choices(
            [*MODELS], [12 if n == "fresh" else 6 if n == "half-space" else 1 for n in MODELS]
        )[0]
        with np.errstate(all="ignore"):
            values = MODELS[name](self, rng)
        return record_of({k: array_of(v) for k, v in values.items()}), (
            () if name == "fresh" else (f"model {name}",)
        )

    def half_space(self, rng: random.Random) -> Values:
        """Return a model that overflows for rows beyond a plane, which one silo alone may have.

        Where the first unit is on, the last layer adds infinity and minus infinity.
        """
        weights, threshold = self._plane(rng)
        values = {key: np.zeros_like(value) for key, value in self.model.items()}
        names = list(values)
        first, bias = names[0], names[1]
        values[first][0] = weights * np.float32(1e6)
        values[bias][0] = -1e6 * threshold
        if len(names) > 4:
            values[names[2]][:2, 0] = 1e17
            values[names[4]][0, :2] = [1e17, -1e17]
        elif len(names) > 2:
            # One hidden layer: two units see the plane, and their infinities meet.
            values[first][:2] = weights * np.float32(1e30)
            values[bias][:2] = -1e30 * threshold
            values[names[2]][0, :2] = [1e30, -1e30]
        else:
            values[first][0], values[bias][0] = weights * np.float32(3e38), -3e38
        return values

    def _plane(self, rng: random.Random) -> tuple[NDArray[np.float32], float]:
        """Return a plane that tells the silos' rows apart, if one along an axis does."""
        mine, theirs = self.rows
        width = mine.shape[1]
        for axis in rng.sample(range(width), width):
            ends = [float(rows[:, axis].max()) for rows in (mine, theirs)]
            if ends[0] != ends[1]:
                weights = np.zeros(width, np.float32)
                weights[axis] = 1
                return weights, (ends[0] + ends[1]) / 2
        direction = np.float32([rng.gauss(0, 1) for _ in range(width)])
        return direction, float(np.quantile(mine @ direction, rng.random()))

    def secure_sum(self, rng: random.Random, number: int) -> Script:
        """Yield a secure sum's messages, as lying as others."""
        purpose = rng.choices(["train", "evaluate", "train ", "x"], [8, 3, 0.3, 0.3])[0]
        kind = "train" if purpose.startswith("train") else "evaluate"
        header, config, labels = self._words(rng, self.world.run, number, ("secure",))
        arrays, what = self.crafted(rng)
        part = RecordDict({"arrays": arrays, "config": ConfigRecord(config)})

        def ask(told: ConfigRecord) -> Ask:
            part["secure"] = told
            content = self._packed(rng, {self.client: part}, header)
            return Ask(kind, content, self.world.run, labels=(*labels, *what))

        yield from self._sum(purpose, number, ask)

    def honest_sum(self, number: int) -> Script:
        """Yield the messages of a secure sum of training as an honest server sends them."""
        arrays = record_of({k: array_of(v) for k, v in self.model.items()})
        config = ConfigRecord({"server-round": number})

        def ask(told: ConfigRecord) -> Ask:
            part = RecordDict({"arrays": arrays, "config": config, "secure": told})
            content = Cohort({self.client: part}, header=self.header(self.world.run)).pack()
            return Ask("train", content, self.world.run)

        yield from self._sum("train", number, ask)

    def _sum(self, purpose: str, number: int, ask: Callable[[ConfigRecord], Ask]) -> Script:
        """Yield one secure sum's messages, in which all other clients collude with the server."""
        overrides = self.world.run
        self.opened = None

        def secure(part: RecordDict) -> Ask:
            content = Cohort({self.client: part}, header=self.header(overrides)).pack()
            return Ask("query.secure", content, overrides, labels=("secure",))

        answer = yield secure(RecordDict({"advertise": ConfigRecord()}))
        try:
            told = Cohort.unpack(answer).parts[self.client]["advertise"]
            advert = Advert.unpack(self.client, told["advert"])
            others = [name for name in self.keys if name != self.client]
            fresh = [FreshKeys.generate() for _ in others]
            adverts = [k.advert(n, self.keys[n]) for k, n in zip(fresh, others, strict=True)]
            protection = protection_of(compose(split_overrides(overrides)))
            session = Purpose(purpose, number, (self.client, *others))
            group = Group(protection, SUM_RUN, session, [advert, *adverts])
            answer = yield secure(group.requests()[self.client])
            group.take_shares(self.client, Cohort.unpack(answer).parts[self.client]["share"])
            members = []
            for index, (keys, own) in enumerate(zip(fresh, adverts, strict=True), 1):
                member = Member.join(
                    group.server.session, keys, own, group.server.neighbours(index), None
                )
                group.server.take_shares(index, *member.deal())
                members.append(member)
        except Exception:
            return
        answer = yield ask(group.delivery(self.client))
        try:
            masked = Cohort.unpack(answer).parts[self.client]
            group.expect([Layout.unpack(masked["layout"])])
            group.add(self.client, masked)
            self._opened(group, members)
            alive = group.server.arrived
            root = group.server.session.root
        except Exception:
            return
        answer = yield secure(RecordDict({"agree": ConfigRecord({"root": root, "alive": alive})}))
        try:
            told = Cohort.unpack(answer).parts[self.client]["agree"]
            group.server.take_signature(0, told["signature"])
            for index, (member, name) in enumerate(zip(members, others, strict=True), 1):
                group.server.take_signature(index, member.agree(alive, self.keys[name]))
            asked = group.unmasking()[self.client]
        except Exception:
            return
        answer = yield secure(asked)
        try:
            told = Cohort.unpack(answer).parts[self.client]["unmask"]
            group.take_unmasking(self.client, told)
            for index, (member, name) in enumerate(zip(members, others, strict=True), 1):
                signatures = group.server.signatures_for(index)
                group.server.take_unmasking(
                    index, member.unmask(signatures, self.keys[name].public)
                )
            # All but this silo add zeros: the sum is its vector.
            self.opened = group
        except Exception:
            return

    def _opened(self, group: Group, members: list[Member]) -> None:
        """Let the others add vectors of zeros."""
        codec = group._codec
        joined = np.zeros(codec.length, (group.server.session.terms.bits == 16 and "u2") or "u4")
        for index, member in enumerate(members, 1):
            words = joined.copy()
            member.mask(words, group.server.shares_for(index))
            group.server.add([index], words, codec.length)


def _filled(number: float) -> Callable[[Server, random.Random], Values]:
    return lambda server, _: {k: np.full_like(v, number) for k, v in server.model.items()}


def _scaled(server: Server, rng: random.Random) -> Values:
    scale = 10.0 ** rng.randint(-6, 38)
    noise = np.random.default_rng(rng.getrandbits(32))
    return {
        k: (noise.normal(size=v.shape) * scale).astype(np.float32) for k, v in server.model.items()
    }


def _spoilt(server: Server, rng: random.Random) -> Values:
    values = {k: v.copy() for k, v in server.model.items()}
    name = rng.choice(list(values))
    values[name].flat[rng.randrange(values[name].size)] = rng.choice((np.nan, np.inf, -1e38, 1e38))
    return values


def _other(server: Server, rng: random.Random) -> Values:
    values = dict(server.model)
    name = rng.choice(list(values))
    values[name] = np.zeros((3, 3), np.float32)
    return values


MODELS: dict[str, Callable[[Server, random.Random], Values]] = {
    "fresh": lambda server, _: server.model,
    "half-space": Server.half_space,
    "zero": _filled(0.0),
    "huge": _filled(1e30),
    "infinite": _filled(np.inf),
    "not a number": _filled(np.nan),
    "of any scale": _scaled,
    "spoilt": _spoilt,
    "of other shape": _other,
    "nothing": lambda *_: {},
}
"""Models, by what is peculiar about them."""
Field = Callable[[Server], Any]


def _always(value: Any) -> Field:
    return lambda _: value


LINEAGES: list[Any] = [
    [["fedcba9876543210", 0]],
    [["0123456789abcdef", 5]],
    [["0123456789abcdef", 0], ["feedbeef00000000", 3]],
    [], 7, [[]], [["../x", 0]], None,
]  # fmt: skip
"""What a run may be called, and where it may say that it was resumed."""
HEADER: dict[str, list[Field]] = {
    "stack": [_always(v) for v in (0, 2, 2, 2, 8, -1, 1.5, "many", True, None, [2])],
    "stacks": [lambda s: [[s.client]], _always([]), _always([["x"]]), _always(7)],
    "rows": [lambda s: {s.client: 10**9}, lambda s: {s.client: -1}, lambda s: {s.client: "all"}],
    "sum_unit": [_always(v) for v in (1.0, 1e-30, 1e30, float("nan"), 1)],
    "sum_from": [_always(v) for v in (0, 1, 2, "x")],
    "lineage": [_always(told) for told in LINEAGES],
    "shared": [_always({}), _always({"mean": [0.0] * 6, "std": [1.0] * 6}), _always([1]),
               lambda s: {**s.shared, "target": {"kind": "regression", "mean": 0.0, "std": 1.0}}],
    "checkpointed": [_always(v) for v in (0, 3, -1, "x")],
    "clip": [_always(1e9)],
    "purpose": [_always("debug")],
    "describe": [_always(True)],
    "privacy": [_always("none")],
    "code": [_always("f" * 64)],
    "config": [_always("f" * 64)],
}  # fmt: skip
"""Fields of a header, and what they may be told."""
CONFIG: dict[str, list[Any]] = {
    "server-round": [0, -1, 1, 2, 29, 31, 2**40, "one", 1.5, [1]],
    "clip": [1e9, 1e-9, float("nan"), -1.0, 1.0, 1],
    "proximal-mu": [1.0, 1e38, float("nan"), -5.0, "x"],
    "rounds": [1, 3, 10**6],
    "weight": [10**6],
    "purpose": ["debug"],
    "stack": [2],
    "return": ["rows"],
}
"""Settings of a client, and what they may be told."""


def _broken(rng: random.Random, content: RecordDict) -> RecordDict:
    """Return a message that does not follow the format."""
    broken = RecordDict(dict(content.items()))
    choice = rng.randrange(5)
    if choice == 0:
        return RecordDict()
    if choice == 1 and PARCEL not in broken and "cohort" in broken:
        told = dict(broken["cohort"])
        key = rng.choice(list(told))
        told[key] = rng.choice(["[]", "{", "9" * 5000, "[" * 5000, json.dumps({"a": {"b": "r9"}})])
        broken["cohort"] = ConfigRecord(told)
    elif choice == 2:
        broken["r0"] = MetricRecord({"a": 1.0})
    elif choice == 3:
        broken["r0"] = ArrayRecord({"w": Array("float64", (10**12,), "numpy.ndarray", b"x")})
    else:
        broken.pop(next(iter(broken)), None)
    return broken
