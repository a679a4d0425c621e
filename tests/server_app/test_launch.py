"""The command: what it refuses, how it ends, what it leaves."""

import csv
import json
import signal
import socket
import subprocess

import psutil
import pytest
from safetensors.torch import load_file

from conf.compose import quote
from conf.errors import FedproofError
from server_app.evidence import files
from server_app.launch import prepare
from tests.conftest import run_nodes
from tests.flower import fedproof, quiet_environment, start, wait_for

EPOCHS = "train.epochs=20"
"""Rounds so long that few are done before a run is interrupted."""


@pytest.fixture(scope="module")
def busy_port():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["age", "ill"], *([i, i % 2] for i in range(40))])
    return path


REFUSED_BEFORE_STARTING = {
    "unknown task": (["task=astrology"], "no task named 'astrology': choose one of finance"),
    "misspelt key": (["train.epoch=3"], "no setting 'train.epoch': did you mean 'train.epochs'?"),
    "wrong type": (["rounds=many"], "rounds: Value 'many' .* Integer"),
    "impossible": (["federation=remote"], "needs federation.superlink=NAME"),
    "out of range": (["train.lr=-1"], "train.lr must be positive"),
    "in a sweep": (["-m", "seed=1,2", "strategy=fedavg,fedsomething"], "no strategy named"),
    "missing file": (["task=tabular", "task.path=none.csv", "task.target=ill"],
                     "task.path=none.csv does not exist: check the path"),
    "no run": (["resume=/nowhere"], "resume=/nowhere is not a run directory"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_BEFORE_STARTING)
def test_refused_before_anything_starts(case):
    arguments, sentence = REFUSED_BEFORE_STARTING[case]
    with pytest.raises(FedproofError, match=sentence) as caught:
        prepare(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "case",
    ["unknown task", "misspelt key", "wrong type", "missing file", "no target", "too many", "port"],
)
def test_bad_input_is_one_sentence_and_an_exit_code(case, tmp_path, table, busy_port):
    arguments, sentence = {
        "no target": (
            ["task=tabular", f"task.path={table}", "task.target=sick", "partition=iid",
             "federation.clients=4"], "has no column 'sick': it has 'age', 'ill'",
        ),
        "too many": (["partition=iid", "federation.clients=5000"], "more clients than data"),
        "port": (["federation=flower", f"federation.port={busy_port}"], "is in use: give another"),
    }.get(case) or (REFUSED_BEFORE_STARTING[case][0], "")  # fmt: skip
    directory = tmp_path / "run"
    done = fedproof(
        *arguments, "federation.workers=1", f"hydra.run.dir={directory}", cwd=tmp_path,
        environment=quiet_environment(),
    )  # fmt: skip
    assert done.returncode in (1, 2), done.stdout + done.stderr
    complaints = done.stderr.strip().splitlines()
    assert len(complaints) == 1 and complaints[0].startswith("fedproof: "), done.stderr
    assert sentence in complaints[0] and "Traceback" not in done.stderr
    assert not (directory / files.SUMMARY).exists() and not (directory / files.MODEL).exists()


def test_an_unreachable_superlink(tmp_path, busy_port):
    home = tmp_path / "home"
    home.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    (home / "config.toml").write_text(
        f'[superlink.away]\naddress = "127.0.0.1:{free}"\ninsecure = true\n'
    )
    for name, reason in (("away", "cannot submit to SuperLink 'away'"), ("lost", "'lost'")):
        done = fedproof(
            "federation=remote", f"federation.superlink={name}", f"hydra.run.dir={tmp_path}/run",
            environment=quiet_environment() | {"FLWR_HOME": str(home)},
        )  # fmt: skip
        assert done.returncode == 1
        assert reason in done.stderr and "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_looking_at_the_configuration():
    done = fedproof("--cfg", "job", "task=finance", "rounds=7")
    assert done.returncode == 0 and "rounds: 7" in done.stdout and "name: finance" in done.stdout
    done = fedproof("--help")
    assert done.returncode == 0 and "strategy: bulyan, centered_clipping" in done.stdout
    completion = quiet_environment() | {
        "COMP_LINE": "fedproof strategy=fedp", "COMP_POINT": "22", "_TEST": "1",
    }  # fmt: skip
    done = fedproof("-sc", "query=bash", environment=completion)
    assert "strategy=fedprox" in done.stdout, done.stdout + done.stderr


def test_a_sweep_leaves_a_directory_per_run(tmp_path):
    done = fedproof(
        "-m", "strategy=fedavg,fedprox", "seed=1,2", "rounds=1", "federation.workers=1",
        f"hydra.sweep.dir={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summaries = [files.read_json(tmp_path / str(i) / files.SUMMARY) for i in range(4)]
    assert [(s["strategy"], s["seed"]) for s in summaries] == [
        ("fedavg", 1), ("fedavg", 2), ("fedprox", 1), ("fedprox", 2),
    ]  # fmt: skip


def test_showing_a_partition(tmp_path):
    done = fedproof(
        "partition=dirichlet", "federation.clients=5", "partition.show=true",
        f"hydra.run.dir={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0 and "5 clients" in done.stdout, done.stderr
    assert (tmp_path / "partition.png").is_file() and (tmp_path / "partition.csv").is_file()
    assert not (tmp_path / files.SUMMARY).exists()


def interrupt(process: subprocess.Popen, number: int) -> None:
    """Interrupt as a terminal does, or end the one process politely."""
    if number == signal.SIGINT:
        for member in [process, *psutil.Process(process.pid).children(recursive=True)]:
            member.send_signal(number)
    else:
        process.send_signal(number)


def ended(directory, number):
    """Interrupt a run of slow rounds after three of them; check how it ends."""
    told = ("federation.workers=2", "rounds=5000", EPOCHS)
    with start(*told, f"hydra.run.dir={directory}") as process:
        wait_for(lambda: len(files.read_lines(directory / files.METRICS)) >= 3, 120)
        family = psutil.Process(process.pid).children(recursive=True)
        interrupt(process, number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"interrupted. Go on with: fedproof resume={directory}" in errors
    assert "Traceback" not in errors, errors
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


def test_a_run_that_is_ended_politely_is_interrupted(tmp_path):
    ended(tmp_path / "run", signal.SIGTERM)


def test_an_interrupted_run_goes_on(tmp_path):
    directory = tmp_path / "run"
    ended(directory, signal.SIGINT)
    done = len(files.read_lines(directory / files.METRICS))
    rounds = f"rounds={done + 2}"
    resumed = fedproof(f"resume={directory}", rounds)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after round" in resumed.stdout
    lines = files.read_lines(directory / files.METRICS)
    assert [line["round"] for line in lines] == list(range(1, done + 3))
    straight = run_nodes(tmp_path / "straight", rounds, EPOCHS)
    models = [load_file(d / files.MODEL) for d in (directory, straight.directory)]
    assert all(models[0][key].equal(models[1][key]) for key in models[1])
    evaluated = fedproof(f"evaluate={directory}", f"hydra.run.dir={tmp_path}/evaluation")
    assert evaluated.returncode == 0, evaluated.stderr
    result = files.read_json(tmp_path / "evaluation" / "evaluation.json")
    assert result["held_out"] == pytest.approx(straight.summary["held_out"])


def test_evaluating_what_is_no_model(tmp_path):
    done = fedproof(f"evaluate={tmp_path}", f"hydra.run.dir={tmp_path}/evaluation")
    assert done.returncode == 2
    assert f"evaluate={tmp_path} is not a run directory of fedproof" in done.stderr


def test_quoting_survives_hydras_grammar(tmp_path):
    for name in ("plain", "with space", "a=b,c", "ünï", "it's {odd} $x"):
        path = tmp_path / name
        path.touch()
        (settings_path,) = prepare([f"task.path={quote(path)}"])
        assert json.loads(settings_path.partition("=")[2]) == str(path)
