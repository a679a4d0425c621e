"""What `fedproof deploy init` writes carries a private run over TLS, and keeps strangers out."""

import shutil
import socket
import ssl
import subprocess
import threading

import pytest

from benchmarks.data import hospitals
from server_app.deploy import command
from server_app.deploy.check import Check
from server_app.deploy.keys import make_authority, make_node_key, make_server, pem, secret
from server_app.engines.superlink import program, quiet_environment
from server_app.evidence import files
from task.audit import AuditLog
from task.privacy.ledger import Ledger
from tests.flower import federation, fedproof

pytestmark = pytest.mark.slow
SILOS = ("cleveland", "hungary", "va")
POLICY = """
tasks: [healthcare]
privacy: {max_epsilon: 4}
aggregation: {min_cohort: 3}
limits: {rounds: 2}
"""
PRIVATE = ("privacy=record_dp", "privacy.sigma=2.0", "task.scaling=local", "model=logistic")
HIDDEN = ("aggregation=secagg", "aggregation.min_cohort=3")


@pytest.fixture(scope="module")
def silos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("federation")
    paths = {path.name.split(".")[1]: path for path in hospitals.main(folder / "data")}
    data = {silo: paths[silo] for silo in SILOS}
    with federation(folder / "f", data, POLICY) as (environment, port):
        yield folder / "f", data, environment, port


def run(directory, environment, *told):
    return fedproof(
        "federation=remote", "federation.superlink=silos", f"federation.nodes={len(SILOS)}",
        "rounds=1", *told, f"hydra.run.dir={directory}", environment=environment,
    )  # fmt: skip


def test_one_private_run_to_a_model(tmp_path, silos):
    folder, data, environment, _ = silos
    done = run(tmp_path / "private", environment, *PRIVATE, *HIDDEN)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = files.read_json(tmp_path / "private" / files.SUMMARY)
    assert summary["secure"]["smallest_sum"] == 3 and summary["clients"] == 3
    assert 0 < summary["privacy"]["epsilon_most"] < 4
    for silo in SILOS:
        kit = folder / "silos" / silo
        receipts = AuditLog(kit / "audit.jsonl").receipts()
        assert {r.message for r in receipts} >= {"query", "query.secure", "train", "evaluate"}
        assert {r.decision for r in receipts} == {"answered"}
        (ledger,) = (kit / "ledgers").glob("*.jsonl")
        assert len(Ledger(ledger).entries()) == 1
        assert Check(kit, data[silo], None).run()


def node(port, folder, *options, clock=()):
    """Try to join; return what Flower's SuperNode said when it gave up."""
    done = subprocess.run(
        [
            *clock, program("flower-supernode"), "--superlink", f"127.0.0.1:{port}", *options,
            "--max-retries", "0", "--max-wait-time", "1", "--isolation", "process",
            "--port", str(_free()),
        ],
        env=quiet_environment() | {"FLWR_HOME": str(folder)}, text=True, timeout=60, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert "SuperNode ID" not in done.stdout, done.stdout
    return done.stdout


@pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")
@pytest.mark.parametrize("off", ["+10min", "-10min"])
def test_a_silo_whose_clock_is_off(tmp_path, silos, off):
    """Its signatures are of another time: Flower takes them for replayed ones after 5 minutes."""
    folder, *_, port = silos
    kit = folder / "silos" / "va"
    mine = ("--auth-supernode-private-key", str(kit / "node.key"))
    clock = ("faketime", "-f", off.replace("min", "m"))
    said = node(port, tmp_path, "--root-certificates", str(kit / "ca.crt"), *mine, clock=clock)
    assert "terminated" in said


def _free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_strangers_do_not_get_in(tmp_path, silos):
    folder, *_, port = silos
    trusted = str(folder / "ca" / "ca.crt")
    make_node_key(tmp_path / "stranger.key")
    stranger = ("--auth-supernode-private-key", str(tmp_path / "stranger.key"))
    mine = ("--auth-supernode-private-key", str(folder / "silos" / "va" / "node.key"))
    assert "Exit Code" in node(port, tmp_path / "1", "--root-certificates", trusted, *stranger)
    other = tmp_path / "other.crt"
    other.write_bytes(pem(make_authority("other")[1]))
    said = node(port, tmp_path / "2", "--root-certificates", str(other), *mine)
    assert "CERTIFICATE_VERIFY_FAILED" in said
    assert "Exit Code" in node(port, tmp_path / "3", "--insecure")


@pytest.fixture
def expired(tmp_path):
    """A server whose certificate ended yesterday, and a kit that trusts who signed it."""
    (tmp_path / "federation.yaml").write_text(
        "{name: old, address: 127.0.0.1, task: healthcare, silos: [a]}"
    )
    command.main(["init", str(tmp_path)])
    authority = make_authority("old")
    key, certificate = make_server(authority, "127.0.0.1", days=-1)
    (tmp_path / "old.key").write_bytes(secret(key))
    (tmp_path / "old.pem").write_bytes(pem(certificate))
    (tmp_path / "silos" / "a" / "ca.crt").write_bytes(pem(authority[1]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "old.pem", tmp_path / "old.key")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_shake, args=(listening, context), daemon=True).start()
        yield tmp_path / "silos" / "a", listening.getsockname()[1]


def _shake(listening, context):
    while True:
        try:
            plain, _ = listening.accept()
        except OSError:
            return
        try:
            context.wrap_socket(plain, server_side=True).close()
        except OSError:
            plain.close()


def test_an_expired_certificate_is_refused(tmp_path, expired, capsys):
    kit, port = expired
    said = node(port, tmp_path / "home", "--root-certificates", str(kit / "ca.crt"))
    assert "certificate has expired" in said
    assert not Check(kit, tmp_path / "none", f"127.0.0.1:{port}").run()
    assert "does not prove who it is (certificate has expired)" in capsys.readouterr().out
