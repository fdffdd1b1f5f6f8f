"""The consortium's certificates and the nodes' keys: who the operator is, and which node whose."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from parties.reuse.signing import write_secret

LOOPBACK = ("localhost", "127.0.0.1")
SLACK = timedelta(hours=1)  # clocks differ


@final
class Authority:
    """A certificate authority (ECDSA P-384) that signs nothing but the operator's certificate.

    Args:
        name: whose it is, as it stands in the certificate.
        days: how long its certificates are good.
        start: from when; None: from an hour ago.
    """

    def __init__(self, name: str, days: int, start: datetime | None = None) -> None:
        self._key = ec.generate_private_key(ec.SECP384R1())
        self._from = start or datetime.now(UTC) - SLACK
        self._until = self._from + timedelta(days=days) + (timedelta() if start else SLACK)
        self._name = _named(f"Fedpact consortium {name}"[:64])
        usage = _usage(key_cert_sign=True, crl_sign=True, digital_signature=False)
        self._own = (
            self._started(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA384())
        )

    def write(self, certificate: Path, key: Path) -> None:
        """The authority's own certificate, and the key that nobody but the operator needs."""
        write_secret(key, _pem(self._key))
        certificate.write_bytes(self._own.public_bytes(serialization.Encoding.PEM))

    def write_server(
        self, certificate: Path, key: Path, host: str, also: Sequence[str] = LOOPBACK
    ) -> None:
        """A certificate with which a server is `host`, and by default this machine."""
        own = ec.generate_private_key(ec.SECP384R1())
        names = dict.fromkeys([host, *also])
        signer = self._own.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        signed = (
            self._started(_named(host[:64]), own.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(map(_general, names)), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer),
                critical=False,
            )
            .sign(self._key, hashes.SHA384())
        )
        write_secret(key, _pem(own))
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def _started(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._from)
            .not_valid_after(self._until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )


def make_node_keys(secret: Path, public: Path) -> None:
    """A new key pair of a firm's node (ECDSA P-384), in the OpenSSH format that Flower reads.

    Raises:
        FedpactError: there is a key already; it is never replaced.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    content = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    write_secret(secret, content)
    line = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    public.write_bytes(line + b"\n")


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(
    *, digital_signature: bool, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
