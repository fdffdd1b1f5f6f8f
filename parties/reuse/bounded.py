"""Reading what a stranger wrote: bounded before it is read, and with no code in it.

Nothing here unpickles, follows a link or trusts a declared size. Whatever is wrong, the error is an
:class:`ArtifactError`.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np

from parties.exchange import Array, FedpactError

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
"""Number types of a tensor: safetensors' name -> numpy's."""

MOST_HEADER = 4 << 20  # bytes of a safetensors header
MOST_FILES = 64  # entries of a folder that are looked at
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MOST_SIZES = 8  # dimensions of a tensor
ASK = "Ask its maker for the artifact again."
WRITE = "Write it with write_artifact."


@final
class ArtifactError(FedpactError):
    """An offered model that cannot be read as one."""


@contextmanager
def only_declared(what: str, remedy: str = ASK) -> Iterator[None]:
    """Hostile bytes make the libraries below raise anything at all; here it becomes one error."""
    try:
        yield
    except ArtifactError:
        raise
    except Exception as fault:
        raise ArtifactError(
            f"{what} cannot be read ({type(fault).__name__}: {str(fault)[:200]}). {remedy}"
        ) from fault


def read_folder(folder: Path, most_bytes: int) -> tuple[dict[str, bytes], dict[str, str]]:
    """The regular files of a folder, each read once, and why each other entry was not.

    Args:
        most_bytes: of all files together; sizes are looked at before anything is read.

    Returns:
        name -> bytes, and name -> reason.

    Raises:
        ArtifactError: there is no such folder, it is a link, or it holds too many entries.
    """
    content: dict[str, bytes] = {}
    strange: dict[str, str] = {}
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        place = os.open(folder, flags | os.O_DIRECTORY)
    except OSError as fault:
        raise ArtifactError(
            f"{folder} is no folder that can be opened ({fault.strerror}); an artifact is a plain "
            "folder, not a link or an archive. Unpack it yourself and name the folder."
        ) from fault
    try:
        names = sorted(os.listdir(place))
        if len(names) > MOST_FILES:
            raise ArtifactError(
                f"{folder} holds {len(names)} entries; an artifact has five files. Ask for the "
                "artifact alone."
            )
        left = most_bytes
        for name in names:
            try:
                file = os.open(name, flags, dir_fd=place)
            except OSError as fault:
                strange[name] = f"is a link or cannot be opened ({fault.strerror})"
                continue
            about = os.fstat(file)
            if not stat.S_ISREG(about.st_mode):
                strange[name] = "is not a regular file"
            elif about.st_size > left:
                strange[name] = f"has {about.st_size} bytes where {left} are left to read"
            else:
                with os.fdopen(file, "rb", closefd=False) as opened:
                    content[name] = opened.read(about.st_size)
                left -= len(content[name])
            os.close(file)
    finally:
        os.close(place)
    return content, strange


def read_json(content: bytes, what: str, remedy: str = ASK) -> dict[str, Any]:
    """An object of strict JSON: UTF-8, no key twice, no NaN or infinity.

    Args:
        what: its name in errors; remedy: what to do about bytes that are no JSON.

    >>> read_json(b'{"a": 1, "a": 2}', "x")
    Traceback (most recent call last):
    ...
    parties.reuse.bounded.ArtifactError: x has the key 'a' twice; legal is once. Write it once.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ArtifactError(
                    f"{what} has the key {key!r} twice; legal is once. Write it once."
                )
            found[key] = value
        return found

    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise ArtifactError(f"{what} has the number {text}; legal are finite ones. Mend it.")
        return value

    with only_declared(what, remedy):
        read = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=once,
            parse_float=number,
            parse_constant=number,
        )
    if not isinstance(read, dict):
        raise ArtifactError(f"{what} is a {type(read).__name__}; legal is a JSON object. Mend it.")
    return read


def read_weights(content: bytes, what: str) -> dict[str, Array]:
    """The tensors of a safetensors file: the declared sizes must add up to the bytes there are.

    References:
        The safetensors format: 8 bytes of header length, a JSON header, the tensors one after
        another without a gap.
    """
    with only_declared(what):
        length = int.from_bytes(content[:8], "little")
        if len(content) < 8 or length > min(MOST_HEADER, len(content) - 8):
            raise ArtifactError(
                f"{what} has {len(content)} bytes and declares a header of {length}; it was cut "
                "off or is no safetensors file. Ask for it again."
            )
        header = read_json(content[8 : 8 + length], f"the header of {what}")
        header.pop("__metadata__", None)
        body = memoryview(content)[8 + length :]
        tensors, at = {}, 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            kind, shape = entry["dtype"], tuple(entry["shape"])
            begin, end = entry["data_offsets"]
            size = _elements(shape, what) * np.dtype(DTYPES.get(kind, "V1")).itemsize
            if kind not in DTYPES or (begin, end) != (at, at + size) or end > len(body):
                raise ArtifactError(
                    f"{what}: tensor {name!r} declares {kind} {list(shape)} at bytes {begin} to "
                    f"{end} of {len(body)}; legal are {', '.join(DTYPES)}, one after another and "
                    "inside the file. Ask for the file again."
                )
            array = np.frombuffer(body[begin:end], DTYPES[kind]).reshape(shape)
            if kind == "BOOL" and np.any(array.view(np.uint8) > 1):
                raise ArtifactError(f"{what}: {name!r} has truth values other than 0 and 1.")
            tensors[name], at = array.copy(), end
        if not tensors or at != len(body):
            raise ArtifactError(
                f"{what} holds {len(tensors)} tensors in {at} of {len(body)} bytes; legal is one "
                "or more, and no byte besides. Ask for the file again."
            )
    return tensors


def _elements(shape: tuple[object, ...], what: str) -> int:
    legal = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape)
    if not legal or len(shape) > MOST_SIZES:
        raise ArtifactError(
            f"{what} declares the shape {list(shape)[:MOST_SIZES]}; legal are up to {MOST_SIZES} "
            "whole numbers >= 0. Ask for the file again."
        )
    return math.prod(n for n in shape if isinstance(n, int))


def read_arrays(packed: bytes, names: tuple[str, ...], most_bytes: int) -> dict[str, Array]:
    """The float32 arrays of an npz file, which must be exactly the named ones.

    The zip directory is looked at before anything is unpacked, and an array's declared shape before
    anything is made of it.
    """
    with only_declared("golden.npz"), zipfile.ZipFile(io.BytesIO(packed)) as archive:
        members = archive.infolist()
        found = sorted(member.filename for member in members)
        if found != sorted(f"{name}.npy" for name in names):
            raise ArtifactError(
                f"golden.npz holds {found[:5]}; legal are exactly "
                f"{[f'{n}.npy' for n in names]}. Write it with write_artifact."
            )
        if any(member.compress_type not in PACKINGS for member in members):
            raise ArtifactError(
                "golden.npz is packed in a way whose unpacking cannot be bounded; legal are stored "
                "and deflated members. Write it with write_artifact."
            )
        size = sum(member.file_size for member in members)
        if size > most_bytes:
            raise ArtifactError(
                f"golden.npz unpacks to {size} bytes; legal are {most_bytes}. Send fewer cases."
            )
        arrays = {}
        for member in members:
            with archive.open(
                member
            ) as member_file:  # `archive.read` unpacks more than is declared
                content = member_file.read(member.file_size)
            arrays[member.filename.removesuffix(".npy")] = _read_npy(content)
        return arrays


def _read_npy(content: bytes) -> Array:
    file = io.BytesIO(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if np.lib.format.read_magic(file) != (1, 0):
            raise ArtifactError("golden.npz is not of npy format 1.0. Write it with numpy.savez.")
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
    body = content[file.tell() :]
    if dtype != np.dtype("<f4") or by_column or _elements(shape, "golden.npz") * 4 != len(body):
        raise ArtifactError(
            f"golden.npz declares {dtype} {shape} in {len(body)} bytes; legal is float32, row by "
            "row, as many as there are. Write it with write_artifact."
        )
    return np.frombuffer(body, "<f4").reshape(shape).copy()


def is_text(value: object, most: int = 500) -> bool:
    """Whether a value is one line of printable text."""
    return isinstance(value, str) and 0 < len(value) <= most and value.isprintable()


def is_digest(value: object) -> bool:
    """Whether a value is a sha256 in hex."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def is_whole(value: object, least: int = 0) -> bool:
    """Whether a value is a whole number >= least."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300  # compares whole numbers of any size, and no NaN


def exactly(
    fields: Mapping[str, Any], names: tuple[str, ...], what: str, remedy: str = WRITE
) -> None:
    """Refuses an object that lacks a field or has one too many."""
    if not isinstance(fields, Mapping) or set(fields) != set(names):
        has = sorted(fields) if isinstance(fields, Mapping) else type(fields).__name__
        raise ArtifactError(f"{what} has {has}; legal are exactly {sorted(names)}. {remedy}")
