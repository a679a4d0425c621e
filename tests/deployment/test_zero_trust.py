"""What `fedproof deploy init` writes carries a private run over TLS, and keeps strangers out."""

import shutil
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.data import hospitals
from server_app.deploy import command
from server_app.deploy.check import Check
from server_app.deploy.keys import make_authority, make_node_key, make_server, pem, secret
from server_app.engines.superlink import program, quiet_environment
from server_app.evidence import files
from task.audit import AuditLog
from task.ports import free_port
from task.privacy.ledger import Ledger
from task.privacy.row_counts import released_counts
from tests.flower import federation, fedproof
from tests.networks import Networks, networks

pytestmark = pytest.mark.slow
SILOS = ("cleveland", "hungary", "switzerland", "va")
POLICY = """
tasks: [healthcare]
privacy: {max_epsilon: 4}
aggregation: {min_cohort: 4}
limits: {rounds: 2}
"""
PRIVATE = ("privacy=record_dp", "privacy.sigma=2.0", "task.scaling=local", "model=logistic")
HIDDEN = ("aggregation=secagg", "aggregation.min_cohort=4")


@dataclass(frozen=True)
class Federation:
    """A federation that runs, and where all of it is."""

    folder: Path
    data: dict[str, Path]
    environment: dict[str, str]
    port: int
    places: Networks

    @property
    def address(self):
        return f"{self.places.server}:{self.port}"

    @property
    def trusted(self):
        return str(self.folder / "ca" / "ca.crt")

    def kit(self, silo):
        return self.folder / "silos" / silo


@pytest.fixture(scope="module")
def silos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("federation")
    paths = {path.name.split(".")[1]: path for path in hospitals.main(folder / "data")}
    data = {silo: paths[silo] for silo in SILOS}
    with (
        networks(SILOS) as places,
        federation(folder / "f", data, POLICY, places) as (environment, port),
    ):
        yield Federation(folder / "f", data, environment, port, places)


def run(directory, environment, *told):
    return fedproof(
        "federation=remote", "federation.superlink=silos", f"federation.nodes={len(SILOS)}",
        "rounds=1", *told, f"hydra.run.dir={directory}", environment=environment,
    )  # fmt: skip


def test_one_private_run_to_a_model(tmp_path, silos):
    done = run(tmp_path / "private", silos.environment, *PRIVATE, *HIDDEN)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = files.read_json(tmp_path / "private" / files.SUMMARY)
    assert summary["secure"]["smallest_sum"] == summary["clients"] == 4
    assert 0 < summary["privacy"]["epsilon_most"] < 4
    assert (tmp_path / "private" / files.MODEL).stat().st_size > 0
    for silo in SILOS:
        kit = silos.kit(silo)
        receipts = AuditLog(kit / "audit.jsonl").receipts()
        assert {r.message for r in receipts} >= {"query", "query.secure", "train", "evaluate"}
        assert {r.decision for r in receipts} == {"answered"}
        (ledger,) = (kit / "ledgers").glob("*.jsonl")
        counts, *released = Ledger(ledger).entries()
        assert released_counts([counts]) and len(released) == 1
        assert Check(kit, silos.data[silo], None, (*PRIVATE, *HIDDEN, "rounds=1")).run()


def test_silos_are_on_their_own_addresses(silos):
    if not silos.places.apart:
        pytest.skip("network namespaces need rights that these tests do not have: ports instead")
    told = [
        subprocess.run([*within, "ip", "-4", "addr"], capture_output=True, text=True, check=True)
        for within in silos.places.within.values()
    ]
    assert len({each.stdout for each in told}) == len(SILOS)
    assert not any(f"{silos.places.server}/" in each.stdout for each in told)


def node(address, folder, *options, within=(), clock=()):
    """Try to join; return what Flower's SuperNode said when it gave up."""
    done = subprocess.run(
        [
            *within, *clock, program("flower-supernode"), "--superlink", address, *options,
            "--max-retries", "0", "--max-wait-time", "1", "--isolation", "process",
            "--port", str(free_port()),
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
    kit, elsewhere = silos.kit("va"), silos.places.within.get("va", ())
    mine = ("--auth-supernode-private-key", str(kit / "node.key"))
    clock = ("faketime", "-f", off.replace("min", "m"))
    told = ("--root-certificates", str(kit / "ca.crt"), *mine)
    said = node(silos.address, tmp_path, *told, within=elsewhere, clock=clock)
    assert "terminated" in said


def test_strangers_do_not_get_in(tmp_path, silos):
    make_node_key(tmp_path / "stranger.key")
    other = tmp_path / "other.crt"
    other.write_bytes(pem(make_authority("other")[1]))
    key = "--auth-supernode-private-key"
    stranger, mine = (key, str(tmp_path / "stranger.key")), (key, str(silos.kit("va") / "node.key"))
    roots, elsewhere = "--root-certificates", silos.places.within.get("hungary", ())
    attempts = {
        "an unregistered node": ((roots, silos.trusted, *stranger), "Exit Code: 305"),
        "without a key": ((roots, silos.trusted), "Exit Code"),
        "another authority": ((roots, str(other), *mine), "CERTIFICATE_VERIFY_FAILED"),
        "in plain text": (("--insecure",), "Exit Code"),
        "a silo's key, while the silo is there": ((roots, silos.trusted, *mine), "Exit Code: 305"),
    }  # fmt: skip
    for name, (options, reason) in attempts.items():
        said = node(silos.address, tmp_path / name, *options, within=elsewhere)
        assert reason in said, (name, said)


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
    said = node(f"127.0.0.1:{port}", tmp_path / "home", "--root-certificates", str(kit / "ca.crt"))
    assert "certificate has expired" in said
    assert not Check(kit, tmp_path / "none", f"127.0.0.1:{port}").run()
    assert "does not prove who it is (certificate has expired)" in capsys.readouterr().out
