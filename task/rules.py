"""The policy file of a silo: what its operator lets any run do, whoever asks.

What the file leaves out has the strict default below; an unknown key is refused, so a slip of the
pen never switches a rule off.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from conf.digest import settings_digest
from conf.errors import FedproofError
from conf.schema import Settings
from task.refusals import Refusal, RefusalError

ANY = "any"
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?:([a-z]{3})(?:-([a-z]{3}))? )?(\d\d):(\d\d)-(\d\d):(\d\d)")


class RefusedError(RefusalError):
    """What a silo's policy does not allow; the server learns which rule, not the silo's value."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(Refusal.of_rule(rule), f"policy, {rule}: {reason}.")


DELTA = 1e-5
"""At which δ a bound on ε is kept to where nobody at the silo says another: never at the run's."""
FILE, NATURAL = "file", "natural"
"""Values of the rule `client` that are no column."""


@dataclass(frozen=True)
class PrivacyRules:
    """What must protect rows or clients; ``mechanism: any`` lets runs without it pass, too.

    ``placement`` is ``local``, ``central`` or ``any``; central noise is added by the server, and so
    protects from everybody but the server.
    """

    mechanism: str = "record_dp"
    placement: str = "local"
    max_epsilon: float = 8.0
    delta: float = DELTA


@dataclass(frozen=True)
class AggregationRules:
    """What must hide single answers; ``mechanism: any`` lets runs in the clear pass, too.

    ``adversary`` and ``identities`` say from whom secagg and he hide them, and ``any`` leaves it to
    the run. Active security needs a ``threshold`` of about 2/3 (Bonawitz et al. 2017, section 6).
    """

    mechanism: str = "secagg"
    adversary: str = "active"
    identities: str = "pinned"
    min_cohort: int = 3
    threshold: float = 0.66


@dataclass(frozen=True)
class Category:
    """The categories of one column that may be named."""

    column: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class HeldOutRules:
    """The least and the largest share of rows that a run may hold out."""

    least: float = 0.05
    most: float = 0.5


@dataclass(frozen=True)
class LimitRules:
    """How much may be asked: bytes of one answer, rounds of one run, epochs or steps of one round.

    ``rounds`` also bounds how often a client trains in one run, rounds tried again included, and
    ``evaluations`` how often its held-out rows are evaluated in one.
    """

    update_bytes: int = 50_000_000
    rounds: int = 100
    evaluations: int = 100
    epochs: int = 5
    steps: int = 10_000


@dataclass(frozen=True)
class MetricRules:
    """Which metrics of one silo may leave outside of secure sums, and from how many rows on.

    ``sums`` lets an evaluation's sums leave, too (counts by class, histograms of scores), without
    which the server cannot evaluate in the clear.
    """

    allowed: tuple[str, ...] = ("loss",)
    min_rows: int = 20
    sums: bool = False


@dataclass(frozen=True)
class Rules:
    """One policy file.

    Attributes
    ----------
    tasks : tuple of str
        Which ``task=`` runs may have; none unless told.
    code : tuple of str
        Digests of the code that may answer, besides being the server's; empty: any such.
    submitters : tuple of str
        Accounts that may submit runs; empty: all. Known with ``fedproof supernode`` only.
    columns : tuple of str
        Columns of the silo's table that may be used; empty: all.
    client : str
        What one client is: ``file``, all of the silo's data; ``natural``, each that the data name
        (a file of a folder, a subject, a writer); or the column whose values name the clients.
    categories : tuple of Category
        Of some columns, the categories that runs may name, and that are told in place of those in
        the rows.
    settings : tuple of str
        Digests of settings that somebody approved (``fedproof deploy check``); empty: any that the
        other rules allow.
    quiet_hours : tuple of str
        Windows of local time in which nothing is answered, as ``22:00-06:00`` or
        ``sat-sun 00:00-24:00``.
    dry_run : bool
        Whether everything is checked and logged, and nothing leaves.
    """

    tasks: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    submitters: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    client: str = FILE
    categories: tuple[Category, ...] = ()
    settings: tuple[str, ...] = ()
    held_out: HeldOutRules = field(default_factory=HeldOutRules)
    privacy: PrivacyRules = field(default_factory=PrivacyRules)
    aggregation: AggregationRules = field(default_factory=AggregationRules)
    limits: LimitRules = field(default_factory=LimitRules)
    metrics: MetricRules = field(default_factory=MetricRules)
    quiet_hours: tuple[str, ...] = ()
    dry_run: bool = False

    def __post_init__(self) -> None:
        for window in self.quiet_hours:
            _window(window)

    def quiet(self, now: datetime) -> str | None:
        """Return the quiet window that a local time lies in, if there is one."""
        return next((w for w in self.quiet_hours if _inside(w, now)), None)


_BELOW = {"delta": 1.0, "threshold": 1.0, "least": 1.0, "most": 1.0}
"""Of numbers that must be less than something."""
_WORDS = {
    (PrivacyRules, "placement"): ("local", "central", ANY),
    (AggregationRules, "adversary"): ("active", ANY),
    (AggregationRules, "identities"): ("pinned", ANY),
}
"""Of rules that are one of some words."""


def read_rules(path: Path) -> Rules:
    """Read a policy file.

    Raises
    ------
    FedproofError
        If there is none, or something in it is not a rule.
    """
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise FedproofError(
            f"the policy {path} cannot be read: give --node-config 'policy=\"FILE\"' its file."
        ) from None
    except (yaml.YAMLError, RecursionError, ValueError):
        raise FedproofError(f"the policy {path} is not YAML: see docs/deploy.md.") from None
    rules = _built(Rules, {} if told is None else told, "", path)
    assert isinstance(rules, Rules)
    return rules


def _built(kind: type, told: Any, prefix: str, path: Path) -> Any:
    """Return a group of rules from what the file says of it."""
    if not isinstance(told, dict):
        where = f"'{prefix.rstrip('.')}'" if prefix else "it"
        raise FedproofError(f"{path}: {where} must be a list of 'key: value' lines.")
    hints = get_type_hints(kind)
    values = {}
    for key, value in told.items():
        name = f"{prefix}{key}"
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, 1, 0.4)
            mend = f"did you mean '{prefix}{close[0]}'?" if close else f"there are {list(hints)}."
            raise FedproofError(f"{path}: there is no rule '{name}': {mend}")
        values[key] = _value(hints[key], value, name, path)
    built = kind(**values)
    _check(built, prefix, path)
    return built


def _value(kind: Any, value: Any, name: str, path: Path) -> Any:
    if kind in (PrivacyRules, AggregationRules, HeldOutRules, LimitRules, MetricRules):
        return _built(kind, value, f"{name}.", path)
    if kind == tuple[Category, ...]:
        return _categories(value, name, path)
    if get_origin(kind) is tuple:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise FedproofError(f"{path}: '{name}' must be a list of names in quotes, got {value!r}.")
    allowed = list(get_args(kind) or (kind,))
    if type(value) in allowed:
        return value
    if float in allowed:
        number = _number(value)
        if number is not None:
            return number
    raise FedproofError(f"{path}: '{name}' must be {_spoken(allowed)}, got {value!r}.")


def _categories(told: Any, name: str, path: Path) -> tuple[Category, ...]:
    if not isinstance(told, dict):
        raise FedproofError(f"{path}: '{name}' must be lines of 'COLUMN: [names in quotes]'.")
    return tuple(
        Category(str(column), _value(tuple[str, ...], values, f"{name}.{column}", path))
        for column, values in told.items()
    )


def _number(value: Any) -> float | None:
    """Return a number; YAML takes ``1e-5`` for a text."""
    try:
        return float(value) if type(value) in (int, str) else None
    except ValueError:
        return None


def _spoken(kinds: list[Any]) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a name"}
    return names.get(kinds[0], "a value")


def _check(rules: Any, prefix: str, path: Path) -> None:
    """Refuse numbers that are none that can be kept to."""
    for one in fields(rules):
        value = getattr(rules, one.name)
        below = _BELOW.get(one.name, float("inf"))
        if type(value) in (int, float) and not 0 < value < below and one.name != "min_rows":
            raise FedproofError(
                f"{path}: '{prefix}{one.name}' must be more than 0 and less than {below:g}, "
                f"got {value:g}."
            )
        known = _WORDS.get((type(rules), one.name))
        if known is not None and value not in known:
            raise FedproofError(
                f"{path}: '{prefix}{one.name}' must be {' or '.join(known)}, got '{value}'."
            )


def refusals(rules: Rules, settings: Settings) -> Iterator[RefusedError]:
    """Yield why the file does not allow a run, rule by rule."""
    task, held_out = settings.task, rules.held_out
    if rules.settings and (digest := settings_digest(settings)) not in rules.settings:
        yield RefusedError("settings", f"the run's settings {digest} are not among the approved")
    if task.name not in rules.tasks:
        yield RefusedError("tasks", f"the run has task={task.name}, not one of {list(rules.tasks)}")
    yield from _beyond_limits(rules.limits, settings)
    if not held_out.least <= task.test_fraction <= held_out.most:
        yield RefusedError(
            "held_out",
            f"the run has task.test_fraction={task.test_fraction:g}, not {held_out.least:g} to "
            f"{held_out.most:g}",
        )
    # Whom noise protects is not the run's to choose.
    column = None if rules.client in (FILE, NATURAL) else rules.client
    if task.client != column:
        yield RefusedError("client", f"the run has task.client={task.client}, not {column}")
    declared: Mapping[str, Sequence[Any]] = task.options.get("categories") or {}
    for category in rules.categories:
        others = {str(v) for v in declared.get(category.column, ())} - {*category.values}
        if others:
            yield RefusedError(
                "categories", f"the run names {sorted(others)} in column '{category.column}'"
            )


def require_columns(rules: Rules, task: str, used: Iterable[str] | None) -> None:
    """Refuse a task that uses columns which the file does not name; None: it cannot say which.

    Raises
    ------
    RefusedError
        Then.
    """
    if not rules.columns:
        return
    if used is None:
        raise RefusedError("columns", f"task={task} names no columns")
    if others := sorted({*used} - {*rules.columns}):
        raise RefusedError("columns", f"the run would use {others}")


def _beyond_limits(limits: LimitRules, settings: Settings) -> Iterator[RefusedError]:
    train = settings.train
    for name, wanted, most in (
        ("rounds", settings.rounds, limits.rounds),
        ("evaluations", -(-settings.rounds // settings.evaluate_every), limits.evaluations),
        ("epochs", 0 if train.steps else train.epochs, limits.epochs),
        ("steps", train.steps or 0, limits.steps),
    ):
        if wanted > most:
            yield RefusedError(f"limits.{name}", f"the run has {name}={wanted}, at most {most}")


def _window(text: str) -> tuple[frozenset[int], int, int]:
    """Return the days of a window, and the minutes of the day from and to which it goes."""
    match = _WINDOW.fullmatch(text.lower())
    if match is None or any(day and day not in _DAYS for day in match.group(1, 2)):
        raise FedproofError(
            f"quiet_hours: '{text}' is no window: write 22:00-06:00, or sat-sun 00:00-24:00."
        )
    first, last = match[1], match[2] or match[1]
    days = frozenset(range(7))
    if first:
        start, end = _DAYS.index(first), _DAYS.index(last)
        days = frozenset((start + i) % 7 for i in range((end - start) % 7 + 1))
    hour, minute, until, rest = (int(number) for number in match.group(3, 4, 5, 6))
    if max(hour * 60 + minute, until * 60 + rest) > 24 * 60 or max(minute, rest) > 59:
        raise FedproofError(f"quiet_hours: '{text}' is no time of the day.")
    return days, hour * 60 + minute, until * 60 + rest


def _inside(text: str, now: datetime) -> bool:
    days, start, end = _window(text)
    minute, day = now.hour * 60 + now.minute, now.weekday()
    if start < end:
        return day in days and start <= minute < end
    # Past midnight a window still belongs to the day on which it began.
    return (day in days and minute >= start) or ((day - 1) % 7 in days and minute < end)


def strictest(rules: Rules, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node config's demands, each as strict as the file's at least.

    Parameters
    ----------
    rules : Rules
        The file.
    told : mapping
        Attributes of `task.privacy.policy.Policy` that the node config sets.

    Raises
    ------
    FedproofError
        If the two demand different mechanisms.
    """
    privacy, aggregation = rules.privacy, rules.aggregation
    merged: dict[str, Any] = {key: value for key, value in told.items() if value != ANY}
    for key, demanded in (
        ("privacy", privacy.mechanism),
        ("placement", privacy.placement if privacy.mechanism == "client_dp" else ANY),
        ("aggregation", aggregation.mechanism),
        ("adversary", aggregation.adversary),
        ("identities", aggregation.identities),
    ):
        if demanded != ANY and merged.setdefault(key, demanded) != demanded:
            raise FedproofError(
                f"--node-config has {key}={merged[key]}, the policy {demanded}: make them agree."
            )
    # Where no mechanism is demanded, a run without one passes: ε bounds those that have one.
    merged["needs_privacy"] = "privacy" in merged or "max_epsilon" in told
    for key, most in (("max_epsilon", privacy.max_epsilon), ("delta", privacy.delta)):
        merged[key] = min(merged.get(key, most), most)
    merged["min_cohort"] = max(merged.get("min_cohort", 0), aggregation.min_cohort)
    merged["threshold"] = max(merged.get("threshold", 0.0), aggregation.threshold)
    return merged
