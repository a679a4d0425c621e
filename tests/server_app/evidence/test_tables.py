from rich.console import Console

from server_app.evidence.tables import (
    budget_table,
    budget_text,
    human_bytes,
    metrics_table,
    result_table,
)


def render(table):
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_bytes():
    sizes = {0: "0 B", 999: "999 B", 1000: "1.0 kB", 1_530_000: "1.5 MB", 2e9: "2.0 GB"}
    assert {count: human_bytes(count) for count in sizes} == sizes
    assert human_bytes(5e13) == "50.0 TB"


def row(name, auroc):
    defined = {} if auroc is None else {"auroc": auroc}
    return {"round": 1, "client": name, "num-examples": 7, "loss": 0.5, **defined}


def test_clients_without_a_metric_show_a_dash():
    text = render(metrics_table([row("b", 0.75), row("a", None)], "auroc"))
    assert text.index("a ") < text.index("b ") and "–" in text and "0.7500" in text


def test_of_many_clients_the_worst_and_best_are_shown():
    rows = [row(f"client-{i:03}", i / 100) for i in range(100)]
    text = render(metrics_table(rows, "auroc"))
    assert "client-000" in text and "client-099" in text and "client-050" not in text
    assert "60 clients in between are in clients.jsonl" in text


PRIVACY = {"unit": "record", "delta": 1e-5, "epsilon": {"a": 1.25, "b": 3.5}, "epsilon_most": 3.5}


def test_a_budgets_bar_is_as_full_as_the_ledger():
    spent = {**PRIVACY, "ledger_epsilon": {"a": 1.25, "b": 4.0}, "max_epsilon": 8.0}
    assert budget_text(spent) == "ε 4.00 █████░░░░░ 8"
    assert budget_text({**spent, "max_epsilon": 3.0}) == f"ε 4.00 {'█' * 10} 3"
    assert budget_text({**PRIVACY, "ledger_epsilon": {}}) == "ε 3.50"


def test_budgets_of_all_clients():
    text = render(budget_table({**PRIVACY, "ledger_epsilon": {"b": 4.0}, "max_epsilon": 8.0}))
    assert text.index("b ") < text.index("a ") and "█████░░░░░ 8" in text and "–" in text
    assert budget_table(None) is None


def test_bytes_that_leave_training_out_say_so():
    summary = {"task": "t", "strategy": "s", "evaluated_round": 1, "held_out": {}, "seconds": 1.0,
               "bytes_down": 1000, "bytes_up": 10}  # fmt: skip
    assert "to evaluate" not in render(result_table(summary))
    secret = {**PRIVACY, "ledger_epsilon": {}, "secret": True}
    assert "sent by clients to evaluate" in render(result_table({**summary, "privacy": secret}))
