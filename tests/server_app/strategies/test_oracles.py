"""SCAFFOLD, FedNova, FedDyn, FedExP and FedBuff against their papers, on quadratics in numpy."""

import numpy as np
import pytest

from task.client_update.base import OWN
from tests.server_app.strategies.quadratic import NAMES, ROWS, START, Quadratics

LR = 0.05
COHORTS = (NAMES, ("ann", "cy"), ("bob", "cy"), NAMES)
P = np.array(ROWS) / sum(ROWS)


def close(found, expected):
    assert np.array(found) == pytest.approx(np.array(expected), abs=2e-5, rel=2e-5)


def weights(cohort, by_rows):
    chosen = [NAMES.index(client) for client in cohort]
    raw = np.array([ROWS[k] if by_rows else 1.0 for k in chosen])
    whole = sum(ROWS) if by_rows else len(ROWS)
    return chosen, raw / raw.sum(), raw.sum() / whole


@pytest.mark.parametrize("weighting", ["clients", "rows"])
def test_scaffold_is_algorithm_1_with_option_2(weighting):
    run = Quadratics(
        "strategy=scaffold", "strategy.server_lr=0.7", f"strategy.weighting={weighting}"
    )
    x, c, own = START.copy(), np.zeros(3), np.zeros((3, 3))
    expected = []
    for cohort in COHORTS:
        chosen, p, share = weights(cohort, weighting == "rows")
        models, changes = [], []
        for k in chosen:
            y = x.copy()
            for _ in range(4):
                y -= LR * (run.A[k] @ y - run.b[k] - own[k] + c)
            fresh = own[k] - c + (x - y) / (4 * LR)
            changes.append(fresh - own[k])
            models.append(y)
            own[k] = fresh
        x = x + 0.7 * sum(w * (y - x) for w, y in zip(p, models, strict=True))
        # Of clients alike this is c + |S|/N times the mean change.
        c = c + share * sum(w * d for w, d in zip(p, changes, strict=True))
        expected.append(x)
    close(run.run(*COHORTS), expected)
    close([run.kept[client][OWN + "control"].numpy() for client in NAMES], own)


def test_scaffolds_variates_are_mean_gradients_with_momentum_too():
    run = Quadratics("strategy=scaffold", "train.momentum=0.9", steps=(5, 5, 5))
    run.run(NAMES)
    for k, client in enumerate(NAMES):
        y, v, weighted, total = START.copy(), np.zeros(3), np.zeros(3), 0.0
        for i in range(5):
            g = run.A[k] @ y - run.b[k]
            v = 0.9 * v + g
            y = y - LR * v
            later = sum(0.9**j for j in range(5 - i))
            weighted, total = weighted + later * g, total + later
        close(run.kept[client][OWN + "control"].numpy(), weighted / total)


def test_scaffold_converges_where_fedavg_does_not():
    settings = ("train.lr=0.1",)
    optimum = np.linalg.solve(
        sum(p * A for p, A in zip(P, Quadratics().A, strict=True)),
        sum(p * b for p, b in zip(P, Quadratics().b, strict=True)),
    )
    cohorts = [NAMES] * 50
    away = {
        name: np.linalg.norm(Quadratics(f"strategy={name}", *settings).run(*cohorts)[-1] - optimum)
        for name in ("fedavg", "scaffold", "feddyn")
    }
    assert away["scaffold"] < 1e-4 and away["feddyn"] < 0.15 < 0.3 < away["fedavg"]


SHORT = {
    "int8": (),
    "quantize": ("compression.bits=2",),
    "topk": ("compression.share=0.34",),
    "random_mask": ("compression.share=0.34", "compression.error_feedback=false"),
}


@pytest.mark.parametrize("name", SHORT)
def test_scaffold_converges_though_updates_are_compressed(name):
    """Variates travel whole: theirs is the mean still, and what is lost of updates fades."""
    run = Quadratics("strategy=scaffold", "train.lr=0.1", f"compression={name}", *SHORT[name])
    models = run.run(*[NAMES] * 60)
    optimum = np.linalg.solve(
        sum(p * A for p, A in zip(P, run.A, strict=True)),
        sum(p * b for p, b in zip(P, run.b, strict=True)),
    )
    plain = Quadratics("strategy=scaffold", "train.lr=0.1").run(NAMES)
    assert np.linalg.norm(models[0] - plain[0]) > 1e-4
    assert np.linalg.norm(models[-1] - optimum) < 1e-4
    own = [run.kept[client][OWN + "control"].numpy() for client in NAMES]
    assert run.strategy.control == pytest.approx(P @ own, abs=1e-5)


def test_fednova_normalises_what_it_reads():
    """Half precision ends within its rounding of the plain model."""
    told = ("strategy=fednova", "train.momentum=0.6")
    plain, short = (
        Quadratics(*told, *more, steps=(2, 6, 3)).run(NAMES, NAMES)[-1]
        for more in ((), ("compression=fp16",))
    )
    assert 0 < np.abs(plain - short).max() < 1e-3 * np.abs(plain - START).max()


@pytest.mark.parametrize(("momentum", "mu"), [(0.0, 0.0), (0.8, 0.0), (0.0, 2.0), (0.6, 1.5)])
def test_fednova_is_normalised_averaging(momentum, mu):
    steps = (2, 6, 3)
    run = Quadratics(
        "strategy=fednova", f"train.momentum={momentum}", f"strategy.proximal_mu={mu}", steps=steps
    )
    x, expected = START.copy(), []
    for _ in range(2):
        directions, lengths = [], []
        for k in range(3):
            gradients, y, v = [], x.copy(), np.zeros(3)
            for _ in range(steps[k]):
                g = run.A[k] @ y - run.b[k]
                gradients.append(g)
                v = momentum * v + g + mu * (y - x)
                y = y - LR * v
            a = coefficients(steps[k], momentum, mu)
            assert y == pytest.approx(x - LR * a @ np.array(gradients))
            lengths.append(np.abs(a).sum())
            directions.append(a @ np.array(gradients) / lengths[-1])
        effective = P @ lengths
        x = x - effective * LR * P @ np.array(directions)
        expected.append(x)
    close(run.run(NAMES, NAMES), expected)


def coefficients(steps, momentum, mu):
    """Return what each gradient weighs in ``(x - y) / lr``, by unrolling the linear recursion."""
    moved, velocity = np.zeros(steps), np.zeros(steps)
    for i in range(steps):
        velocity = momentum * velocity + np.eye(steps)[i] - LR * mu * moved
        moved = moved + velocity
    return moved


@pytest.mark.parametrize("weighting", ["clients", "rows"])
def test_feddyn_is_algorithm_1(weighting):
    alpha = 0.3
    run = Quadratics(
        "strategy=feddyn", f"strategy.alpha={alpha}", f"strategy.weighting={weighting}"
    )
    theta, h, g, expected = START.copy(), np.zeros(3), np.zeros((3, 3)), []
    for cohort in COHORTS:
        chosen, p, share = weights(cohort, weighting == "rows")
        models = []
        for k in chosen:
            w = theta.copy()
            for _ in range(4):
                w -= LR * (run.A[k] @ w - run.b[k] - g[k] + alpha * (w - theta))
            g[k] -= alpha * (w - theta)
            models.append(w)
        mean = p @ np.array(models)
        h = h - alpha * share * (mean - theta)
        theta = mean - h / alpha
        expected.append(theta)
    close(run.run(*COHORTS), expected)


def test_fedexp_extrapolates_by_the_disagreement():
    run = Quadratics("strategy=fedexp", "strategy.epsilon=0.001")
    x, expected, steps = START.copy(), [], []
    for _ in range(8):
        moves = []
        for k in range(3):
            y = x.copy()
            for _ in range(4):
                y -= LR * (run.A[k] @ y - run.b[k])
            moves.append(y - x)
        mean = P @ np.array(moves)
        spread = P @ np.array([d @ d for d in moves])
        steps.append(max(1.0, spread / (2 * (mean @ mean + 0.001))))
        x = x + steps[-1] * mean
        expected.append(x)
    assert steps[0] == 1 < steps[-1]
    close(run.run(*[NAMES] * 8), expected)
    assert run.metrics["server-lr"] == pytest.approx(steps[-1], rel=1e-3)


def test_fedbuff_discounts_updates_from_older_models():
    run = Quadratics("strategy=fedbuff", "strategy.buffer=1", "strategy.concurrency=3")
    schedule = run.strategy.around.sampler
    rows = dict(zip(NAMES, ROWS, strict=True))
    flushes = [schedule.flush(rows, number) for number in range(1, 7)]
    models, stale = [START.copy()], 0
    for number, flush in enumerate(flushes):
        ((client, version),) = flush.starts.items()
        k, age = NAMES.index(client), number - version
        y = models[version].copy()
        for _ in range(4):
            y -= LR * (run.A[k] @ y - run.b[k])
        models.append(models[-1] + (y - models[version]) / np.sqrt(1 + age))
        stale += age
    close(run.run(*(sorted(flush.starts) for flush in flushes)), models[1:])
    assert stale >= 4
    assert set(run.strategy.models) == {str(v) for v in flushes[-1].awaited if v < 6}
