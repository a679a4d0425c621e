import pytest
from rich.console import Console

from conf.compose import compose
from conf.errors import FedproofError
from server_app.privacy_plan import choice_table, client_table, show_plan
from task.privacy.accounting import Spend, epsilon

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
    assert "add-or-remove-one" in shown and "dp-accounting" in shown


def test_the_noise_that_a_target_needs():
    settings = compose((*DP, "privacy.epsilon=2.0"))
    shown = text(client_table(settings, {"ward": 160}))
    mechanism = [part.strip() for part in shown.splitlines() if "ward" in part]
    sigma, cost = (float(cell) for cell in mechanism[0].strip("│").split("│")[-2:])
    assert 1.9 < cost <= 2.0 and sigma > 1


def test_other_choices():
    shown = text(choice_table(compose((*DP, "privacy.sigma=1.0")), 160))
    for rounds, sigma in ((1, 0.5), (2, 1.0), (4, 2.0), (8, 0.7)):
        assert f"{rounds} rounds" in shown
        assert f"{epsilon([Spend(sigma, 0.1, 10 * rounds)], 1e-5):.3f}" in shown


def test_clients_with_the_fewest_rows_come_first():
    settings = compose((*DP, "privacy.sigma=1.0"))
    shown = text(client_table(settings, {f"c{n}": 40 + n % 2 for n in range(30)}))
    assert "10 clients with more rows pay less" in shown


def test_a_plan_of_nothing():
    with pytest.raises(FedproofError, match="needs a mechanism"):
        client_table(compose(()), {})
