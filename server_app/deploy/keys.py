"""Certificates and keys: EC P-384, as Flower wants them; secrets in files of their owner alone."""

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from conf.errors import FedproofError
from task.atomic import make_folder

AUTHORITY_DAYS, SERVER_DAYS = 3650, 397
_SKEW = timedelta(hours=1)
"""How far a silo's clock may be behind when the certificates are new."""


def write_new(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Write a file that is not there yet; folders are made for this user alone.

    Raises
    ------
    FedproofError
        If there is one, or it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        make_folder(path.parent)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
    except FileExistsError:
        raise FedproofError(
            f"{path} is there already and stays: remove it to make it anew."
        ) from None
    except OSError as error:
        raise FedproofError(f"{path} cannot be written ({error.strerror}).") from None


def make_authority(name: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Return the key and certificate of a new certificate authority."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _called(f"{name} certificate authority")
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        _builder(subject, subject, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return key, builder.sign(key, hashes.SHA384())


def make_server(
    authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
    address: str,
    days: float = SERVER_DAYS,
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Return key and certificate of the server at an address, and on its own loopback.

    Parameters
    ----------
    authority : (key, certificate)
        Who signs.
    address : str
        Host name or IP address.
    days : float
        How long it is valid from now on.
    """
    key, (signer, issuer) = ec.generate_private_key(ec.SECP384R1()), authority
    names = dict.fromkeys([address, "localhost", "127.0.0.1"])
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = (
        _builder(_called(address), issuer.subject, key.public_key(), days)
        .add_extension(x509.SubjectAlternativeName([_alternative(n) for n in names]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(identifier, False)
    )
    return key, builder.sign(signer, hashes.SHA384())


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    end = now + timedelta(days=days)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - _SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as text."""
    return certificate.public_bytes(Encoding.PEM)


def secret(key: ec.EllipticCurvePrivateKey, *, ssh: bool = False) -> bytes:
    """Return a private key as text; Flower takes those of SuperNodes in OpenSSH's format."""
    form = PrivateFormat.OpenSSH if ssh else PrivateFormat.PKCS8
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def make_node_key(path: Path) -> bytes:
    """Make a SuperNode's key, of which only the public half is to travel; return that half.

    Raises
    ------
    FedproofError
        If there is a key already.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    write_new(path, secret(key, ssh=True), 0o600)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n"
    write_new(path.with_suffix(".pub"), public)
    return public


def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _alternative(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)
