"""``fedproof deploy init DIR``, ``key DIR`` and ``check DIR``: from nothing to a federation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from conf.errors import FedproofError
from server_app.deploy import templates
from server_app.deploy.federation import Federation, read_federation
from server_app.deploy.ignored import IGNORE, ignore_all_but
from server_app.deploy.keys import (
    make_authority,
    make_node_key,
    make_server,
    pem,
    secret,
    write_new,
)
from task.identity import Identity

_SERVER = {
    "start.sh": templates.SUPERLINK,
    "superlink.service": templates.UNIT,
    "docker-compose.yaml": templates.COMPOSE_SERVER,
    "nginx.conf": templates.NGINX,
    "experiment": templates.EXPERIMENT,
    "home/config.toml": templates.CONNECTION,
}
_SILO = {
    "start.sh": templates.SUPERNODE,
    "supernode.service": templates.UNIT,
    "docker-compose.yaml": templates.COMPOSE_SILO,
    "policy.yaml": templates.POLICY,
    "superlink": "$endpoint\n",
    "experiment": templates.EXPERIMENT,
    "README": templates.README,
}
_SHARED = ("ca.crt", "node.pub", "roster", *_SILO)
"""Files of a silo's kit that are no secrets."""


def main(arguments: Sequence[str]) -> None:
    """Set up a federation; make a silo's keys; check a silo; say what is installed.

    Raises
    ------
    FedproofError
        If a file is there already or something cannot be read.
    """
    parser = argparse.ArgumentParser(prog="fedproof deploy", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    init = commands.add_parser("init", help="write certificates and kits, from federation.yaml")
    init.add_argument("folder", type=Path, help="with federation.yaml; everything goes there")
    key = commands.add_parser("key", help="make a silo's keys, at the silo")
    key.add_argument("folder", type=Path, help="the silo's kit")
    check = commands.add_parser("check", help="say whether a silo can take part, at the silo")
    check.add_argument("folder", type=Path, help="the silo's kit")
    check.add_argument("--data", type=Path, required=True, help="as it is told to start.sh")
    check.add_argument("--superlink", default=None, help="HOST:PORT instead of the kit's")
    check.add_argument("overrides", nargs="*", help="of the run, instead of the kit's experiment")
    sbom = commands.add_parser("sbom", help="write what this installation consists of (CycloneDX)")
    sbom.add_argument("file", type=Path, nargs="?", help="printed unless given")
    commands.add_parser("licences", help="list the licences of all that is installed here")
    told = parser.parse_args(arguments)
    if told.command == "init":
        initialise(told.folder)
    elif told.command in ("sbom", "licences"):
        from server_app.deploy import supply

        supply.write_bill(told.file) if told.command == "sbom" else supply.show_licences()
    elif told.command == "key":
        make_keys(told.folder)
    else:
        from server_app.deploy.check import Check

        run = tuple(told.overrides) or None
        if not Check(told.folder, told.data, told.superlink, run).run():
            sys.exit(1)


def initialise(folder: Path) -> None:
    """Write what a federation needs beside its ``federation.yaml``; nothing is overwritten.

    Raises
    ------
    FedproofError
        If the file is wrong, or something is there already.
    """
    federation = read_federation(folder / "federation.yaml")
    for name in ("ca", "server", "silos"):
        if (folder / name).exists():
            raise FedproofError(f"{folder / name} is there already and stays: take another folder.")
    authority = make_authority(federation.name)
    key, certificate = make_server(authority, federation.address)
    trusted = pem(authority[1])
    write_new(folder / "ca" / IGNORE, ignore_all_but(()))
    write_new(folder / "ca" / "ca.key", secret(authority[0]), 0o600)
    write_new(folder / "ca" / "ca.crt", trusted)
    server = folder / "server"
    write_new(server / IGNORE, ignore_all_but(("ca.crt", "server.pem", *_SERVER)))
    write_new(server / "server.key", secret(key), 0o600)
    write_new(server / "server.pem", pem(certificate) + trusted)
    write_new(server / "ca.crt", trusted)
    _write(
        server, _SERVER, federation, folder="server", service="superlink",
        what=f"SuperLink of {federation.name}", ca=str((server / "ca.crt").resolve()),
    )  # fmt: skip
    for silo in federation.silos:
        kit = folder / "silos" / silo
        write_new(kit / IGNORE, ignore_all_but(_SHARED))
        write_new(kit / "ca.crt", trusted)
        _write(
            kit, _SILO, federation, folder=silo, silo=silo, service="supernode",
            what=f"SuperNode of {silo}",
        )  # fmt: skip
    print(
        f"{folder}: ca/ stays with you and off the net, server/ goes to the SuperLink's machine, "
        f"silos/NAME/ to each silo.\nEach silo: fedproof deploy key KIT, and send you node.pub. "
        f"Then: FLWR_HOME={server / 'home'} flwr supernode register node.pub {federation.name}"
    )


def _write(place: Path, files: Mapping[str, str], federation: Federation, **more: str) -> None:
    """Write files from their templates, with the federation's values filled in."""
    values = {
        "name": federation.name, "address": federation.address, "port": str(federation.port),
        "endpoint": federation.endpoint, "task": federation.task,
        "task_settings": templates.TASK_SETTINGS.get(federation.task, templates.LOCAL_SCALING),
        **more,
    }  # fmt: skip
    for name, text in files.items():
        mode = 0o755 if name.endswith(".sh") else 0o600 if name.startswith("home/") else 0o644
        write_new(place / name, Template(text).substitute(values), mode)


def make_keys(kit: Path) -> None:
    """Make a silo's keys in its kit, and say what of them travels.

    Raises
    ------
    FedproofError
        If this is no kit, or it has keys.
    """
    if not (kit / "ca.crt").is_file():
        raise FedproofError(f"{kit} is no kit of a silo: give a folder that `deploy init` wrote.")
    # However the kit came here, its dotfile and its modes may not have come along.
    kit.chmod(0o700)
    if not (kit / IGNORE).exists():
        write_new(kit / IGNORE, ignore_all_but(_SHARED))
    public = make_node_key(kit / "node.key")
    identity = Identity()
    try:
        identity.write(kit / "identity.key")
    except FileExistsError:
        raise FedproofError(f"{kit / 'identity.key'} is there already and stays.") from None
    print(
        f"Send to the federation's operator {kit / 'node.pub'}:\n{public.decode().strip()}\n"
        f"and to all silos, for their rosters:\n{identity.public.hex()} {kit.resolve().name}"
    )
