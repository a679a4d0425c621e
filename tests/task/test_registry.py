import pytest

from conf.errors import FedproofError
from task.registry import find, names


def test_modules_are_the_choices():
    shipped = {"healthcare", "finance", "keyboard", "iot", "vision", "tabular", "synthetic"}
    assert shipped == set(names("task.tasks"))
    assert find("task.models", "mlp").__name__ == "task.models.mlp"


@pytest.mark.parametrize("name", ["nope", "_leaf", "os", "..base", "mlp.build", ""])
def test_nothing_else_is_imported(name):
    with pytest.raises(FedproofError, match="choose one of char_lstm, char_transformer"):
        find("task.models", name)


def test_every_choice_has_its_yaml_and_the_other_way_round(request):
    conf = request.config.rootpath / "conf"
    for package in ("task.tasks", "task.models", "task.partitions", "server_app.strategies"):
        group = {"tasks": "task", "strategies": "strategy"}.get(
            package.rpartition(".")[2], package.rpartition(".")[2].rstrip("s")
        )
        assert {path.stem for path in (conf / group).glob("*.yaml")} == set(names(package))
