"""What `fedproof deploy init` writes: private, complete, never over what is there."""

import re
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from benchmarks.data import hospitals
from conf.digest import PACKAGES
from conf.errors import FedproofError
from server_app.deploy import check, command
from server_app.deploy.federation import read_federation
from server_app.deploy.keys import make_authority, make_server
from task.rules import read_rules

ROOT = Path(__file__).resolve().parents[3]
IMAGE = "server_app/deploy/Dockerfile"
GOOD = {"name": "heart", "address": "fl.example.org", "silos": ["a", "b"], "task": "healthcare"}


def federation(folder: Path, **changes: object) -> Path:
    told = {key: value for key, value in (GOOD | changes).items() if value is not None}
    (folder / "federation.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
    return folder


@pytest.fixture
def made(tmp_path):
    command.main(["init", str(federation(tmp_path))])
    return tmp_path


def test_secrets_are_their_owners_and_stay_where_they_are(made):
    command.main(["key", str(made / "silos" / "a")])
    secrets = set(made.rglob("*.key"))
    assert {p.parent.name for p in secrets} == {"ca", "server", "a"} and len(secrets) == 4
    assert all(p.stat().st_mode & 0o777 == 0o600 for p in secrets)
    kit = [p for p in (made / "silos" / "b").rglob("*") if p.is_file()]
    assert not any(b"PRIVATE" in path.read_bytes() for path in kit)


def test_nothing_is_overwritten(made):
    before = {p: p.read_bytes() for p in made.rglob("*") if p.is_file()}
    for again in (["init", str(made)], ["key", str(made / "silos" / "a")]):
        if again[0] == "key":
            command.main(again)
            before = {p: p.read_bytes() for p in made.rglob("*") if p.is_file()}
        with pytest.raises(FedproofError, match="is there already and stays"):
            command.main(again)
    assert before == {p: p.read_bytes() for p in made.rglob("*") if p.is_file()}


def test_the_certificate_is_for_the_address_and_loopback(made):
    context = ssl.create_default_context(cafile=made / "server" / "ca.crt")
    context.load_verify_locations(made / "ca" / "ca.crt")
    certificate = x509.load_pem_x509_certificate((made / "server" / "server.pem").read_bytes())
    names = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    assert names.value.get_values_for_type(x509.DNSName) == ["fl.example.org", "localhost"]
    assert certificate.public_key().curve.name == "secp384r1"
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert 397 <= life.days <= 398
    authority = make_authority("x")
    _, other = make_server(authority, "10.0.0.7")
    other.verify_directly_issued_by(authority[1])


def test_the_files_are_what_they_are_for(made):
    server, silo = made / "server", made / "silos" / "b"
    nginx = (server / "nginx.conf").read_text()
    assert nginx.count("proxy_pass") == 1 and "location /v1/fleet/" in nginx
    assert "location / { return 404; }" in nginx
    assert "--enable-supernode-auth" in (server / "start.sh").read_text()
    assert 'client=\\"b\\"' in (silo / "start.sh").read_text()
    assert read_rules(silo / "policy.yaml").tasks == ("healthcare",)
    assert not any("$name" in p.read_text() for p in made.rglob("*") if p.is_file())


CONFINED = {
    "build": {"context": "${CHECKOUT:?the checkout of fedproof}", "dockerfile": IMAGE},
    "user": "10001",
    "working_dir": "/kit",
    "command": ["/bin/sh", "/kit/start.sh"],
    "restart": "unless-stopped",
    "read_only": True,
    "tmpfs": ["/tmp"],
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}
"""What a container is, whichever side it is of; anything else has to be meant."""


def test_containers_are_confined_and_only_the_superlink_listens(made):
    for kit, more in (
        ("server", {"volumes": [".:/kit"], "ports": ["8000:8000"]}),
        ("silos/b", {"volumes": [".:/kit", "${DATA:?the data}:/data:ro"],
                     "environment": {"DATA": "/data"}}),
    ):  # fmt: skip
        told = yaml.safe_load((made / kit / "docker-compose.yaml").read_text())
        assert list(told) == ["services"]
        assert list(told["services"].values()) == [CONFINED | more]


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is missing")
def test_compose_takes_its_files(made, monkeypatch):
    monkeypatch.setenv("CHECKOUT", str(ROOT))
    monkeypatch.setenv("DATA", str(made))
    for kit in (made / "server", made / "silos" / "b"):
        command = ["docker-compose", "-f", kit / "docker-compose.yaml", "config"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (service,) = yaml.safe_load(done.stdout)["services"].values()
        assert service["build"] == {"context": str(ROOT), "dockerfile": IMAGE}
        assert (ROOT / IMAGE).is_file()
        assert service["user"] == "10001"


def test_the_image_holds_what_the_lock_does_and_no_more_of_a_checkout(made):
    lines = (ROOT / IMAGE).read_text().splitlines()
    (origin,) = (line for line in lines if line.startswith("FROM "))
    assert re.fullmatch(r"FROM python:3\.\d+\.\d+-slim-\w+", origin)
    assert lines[-1] == "USER 10001" and any("--require-hashes" in line for line in lines)
    first, *kept = (ROOT / f"{IMAGE}.dockerignore").read_text().splitlines()
    assert first == "*"
    assert {line[1:] for line in kept if line.startswith("!")} == {
        *PACKAGES, "LICENSE", "README.md", "pyproject.toml", "uv.lock",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"silos": None}, "must say name, address, silos, task"),
        ({"ports": 3}, "no more"),
        ({"silos": ["a", "a"]}, "different names"),
        ({"silos": ["../a"]}, "different names"),
        ({"silos": ['a"; rm -rf /; "']}, "different names"),
        ({"name": "$(id)"}, "must be words"),
        ({"address": "host; id"}, "no host name"),
        ({"address": 7}, "no host name"),
        ({"port": 70000}, "is no port"),
    ],
)
def test_what_cannot_be_set_up(tmp_path, changes, reason):
    with pytest.raises(FedproofError, match=reason):
        read_federation(federation(tmp_path, **changes) / "federation.yaml")


def test_a_check_names_all_that_is_wrong(made, capsys, monkeypatch):
    kit = made / "silos" / "a"
    data = hospitals.main(made / "data")[0]
    monkeypatch.setattr(check.Check, "_server", lambda _: "not looked at")
    assert not check.Check(kit, data, None).run()
    assert "WRONG  keys: there is no" in capsys.readouterr().out
    command.main(["key", str(kit)])
    assert check.Check(kit, data, None).run()
    (kit / "node.key").chmod(0o644)
    (kit / "audit.jsonl").write_text("{}\n")
    (kit / "policy.yaml").write_text("tasks: [healthcare]\ncode: [other]\n")
    capsys.readouterr()
    assert not check.Check(kit, made / "nowhere.csv", None).run()
    said = capsys.readouterr().out
    for wrong in ("data: no heart-disease data", "keys: others may read", "ledger: the audit log",
                  "policy.yaml does not accept"):  # fmt: skip
        assert wrong in said


def test_nobody_listens(made, capsys):
    kit = made / "silos" / "a"
    check.Check(kit, made, "127.0.0.1:1").run()
    assert "WRONG  TLS: 127.0.0.1:1 cannot be reached" in capsys.readouterr().out
