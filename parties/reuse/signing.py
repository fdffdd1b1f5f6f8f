"""Who made it: Ed25519 signatures, and the keys that a firm has pinned."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from parties.exchange import FedpactError

MOST_KEY = 4096  # bytes of a key file


def make_keys(folder: Path, firm: str) -> tuple[Path, Path]:
    """A new key pair as PEM files: `<firm>.key`, for its owner's eyes only, and `<firm>.pub`.

    Raises:
        FedpactError: there is a key of that name already; it is never replaced.
    """
    secret, public = folder / f"{firm}.key", folder / f"{firm}.pub"
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_secret(secret, private)
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return secret, public


def write_secret(path: Path, content: bytes) -> None:
    """A file for its owner's eyes only, never in the place of another.

    Raises:
        FedpactError: there is one already.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as fault:
        raise FedpactError(
            f"The key {path} cannot be made ({fault.strerror}); a key is never replaced. Name "
            "another folder, or move the old key away."
        ) from fault
    with os.fdopen(file, "wb") as opened:
        opened.write(content)


def sign(content: bytes, secret: Path) -> bytes:
    """The 64 bytes of a signature."""
    try:
        key = serialization.load_pem_private_key(_read(secret), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        raise _bad(str(secret)) from fault
    if not isinstance(key, Ed25519PrivateKey):
        raise _bad(str(secret))
    return key.sign(content)


def is_signed(content: bytes, signature: bytes, firm: str, keys: Mapping[str, str]) -> bool:
    """Whether a firm's pinned key has signed this.

    Args:
        keys: firm -> its public key: PEM text, or the path of a PEM file.

    Raises:
        FedpactError: no key of this firm is pinned, or it cannot be read.
    """
    if firm not in keys:
        raise FedpactError(
            f"no key of {firm!r} is pinned; pinned are those of {sorted(keys) or 'nobody'}. Get "
            "its public key from the firm itself and add it to the gate's keys "
            "(gate.keys.FIRM=FILE)."
        )
    text = keys[firm]
    pem = text.encode() if text.startswith("-----BEGIN") else _read(Path(text))
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as fault:
        raise _bad(f"of {firm}") from fault
    if not isinstance(key, Ed25519PublicKey):
        raise _bad(f"of {firm}")
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST_KEY)
    except OSError as fault:
        raise FedpactError(
            f"The key {path} cannot be read ({fault.strerror}); legal is a PEM file. Make a pair "
            "with make_keys, or correct the path."
        ) from fault


def _bad(which: str) -> FedpactError:
    return FedpactError(
        f"The key {which} is no Ed25519 key in PEM; legal is what make_keys writes. Make a pair "
        "with make_keys."
    )
