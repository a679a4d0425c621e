import pytest
from rich.console import Console

from conf.compose import compose
from conf.errors import FedproofError
from server_app.privacy.plan import choice_table, client_table, show_plan
from task.privacy.accounting import Spend, epsilon
from task.privacy.policy import mechanism_of

DP = ("privacy=record_dp", "task.scaling=local", "rounds=4", "train.epochs=1")


def text(table):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_every_client_before_anything_is_trained(capsys, tmp_path):
    show_plan(compose((*DP, "privacy.sigma=1.5", "privacy.plan=true")))
    shown = capsys.readouterr().out
    for client, rows in (("switzerland", 81), ("cleveland", 199)):
        cost = epsilon([Spend(1.5, 16 / rows, 4 * -(-rows // 16))], 1e-5)
        (line,) = [line for line in shown.splitlines() if client in line]
        assert f"{cost:.3f}" in line and str(rows) in line
    assert "add-or-remove-one · PLD" in shown


def test_the_noise_that_a_target_needs():
    settings = compose((*DP, "privacy.epsilon=2.0"))
    shown = text(client_table(settings, mechanism_of(settings), {"ward": 160}))
    mechanism = [part.strip() for part in shown.splitlines() if "ward" in part]
    sigma, cost = (float(cell) for cell in mechanism[0].strip("│").split("│")[-2:])
    assert 1.9 < cost <= 2.0 and sigma > 1


def test_evaluations_are_paid_from_the_same_target(capsys):
    told = (*DP, "privacy.epsilon=2.0", "privacy.evaluation=noised")
    settings = compose(told)
    shown = text(client_table(settings, mechanism_of(settings), {"ward": 160}))
    (line,) = [line for line in shown.splitlines() if "ward" in line]
    sigma, cost = (float(cell) for cell in line.strip("│").split("│")[-2:])
    alone = epsilon([Spend(sigma, 0.1, 40)], 1e-5)
    assert 1.9 < cost <= 2.0 and 1.5 < alone < cost
    show_plan(settings)
    assert "sums over held-out rows have noise of their own" in capsys.readouterr().out


def test_other_choices():
    settings = compose((*DP, "privacy.sigma=1.0"))
    shown = text(choice_table(settings, mechanism_of(settings), 160))
    for rounds, sigma in ((1, 0.5), (2, 1.0), (4, 2.0), (8, 0.7)):
        assert f"{rounds} rounds" in shown
        assert f"{epsilon([Spend(sigma, 0.1, 10 * rounds)], 1e-5):.3f}" in shown


def test_clients_with_the_fewest_rows_come_first():
    settings = compose((*DP, "privacy.sigma=1.0"))
    rows = {f"c{n}": 40 + n % 2 for n in range(30)}
    shown = text(client_table(settings, mechanism_of(settings), rows))
    assert "10 clients with more rows pay less" in shown


def test_a_plan_of_nothing():
    with pytest.raises(FedproofError, match="needs a mechanism"):
        show_plan(compose(()))


def test_client_level_costs_every_client_the_same(capsys):
    told = ("privacy=client_dp", "task=synthetic", "task.clients=100", "federation.fraction=0.1")
    show_plan(compose((*told, "rounds=100", "privacy.sigma=1.0", "privacy.delta=0.001")))
    shown = capsys.readouterr().out
    # privacy.md: 4.78 by Poisson sampling, 85.2 without.
    assert "each of 100" in shown and "4.78" in shown


def test_a_delta_that_would_tell_one_client_outright():
    with pytest.raises(FedproofError, match="must be below 1 / clients = 0.25"):
        show_plan(
            compose(
                (
                    "privacy=client_dp",
                    "privacy.sigma=1.0",
                    "privacy.delta=0.25",
                    "task.scaling=local",
                )
            )
        )
