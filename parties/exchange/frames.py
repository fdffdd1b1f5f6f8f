"""Messages as bytes: between machines, between a firm's app and its desk, and for the audit log.

A frame is the size of its header (8 bytes, little endian), the header (JSON: kind, text, and name,
dtype and shape of each array), then the arrays' bytes, little endian, in the order of their names.
A message has one frame, so that its sha256 stands for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from parties.exchange.checks import Array, ExchangeError, require
from parties.exchange.packing import Packed

MOST_HEADER = 2**24  # bytes
MOST_FRAME = 2**32  # bytes
MOST_DIMENSIONS = 32
DTYPES = ("<f2", "<f4", "<f8", "<i2", "<i4", "<i8", "<u2", "<u4", "<u8", "|i1", "|u1")


def write_frame(packed: Packed) -> bytes:
    """The one frame of a message.

    Raises:
        ExchangeError: an array of no legal dtype, or a message that is too large.
    """
    arrays = {}
    for name in sorted(packed.arrays):
        array = np.asarray(packed.arrays[name])
        arrays[name] = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        if arrays[name].dtype.str not in DTYPES:
            raise ExchangeError(
                f"the array {name!r} has dtype {array.dtype}; legal are {', '.join(DTYPES)}."
            )
    header = _header(packed.kind, packed.text, arrays)
    size = 8 + len(header) + sum(a.nbytes for a in arrays.values())
    if len(header) > MOST_HEADER or size > MOST_FRAME:
        raise ExchangeError(
            f"a {packed.kind} of {size} bytes, {len(header)} of them its header; legal are "
            f"{MOST_FRAME} and {MOST_HEADER}. Share a smaller model."
        )
    raw = (a.reshape(-1).view(np.uint8).data for a in arrays.values())
    return b"".join((len(header).to_bytes(8, "little"), header, *raw))


def read_frame(content: bytes | bytearray) -> Packed:
    """The reverse of `write_frame`; the arrays are copies.

    Raises:
        ExchangeError: anything that is not the one frame of a message.
    """
    size = int.from_bytes(content[:8], "little")
    require(
        8 + size <= len(content) and size <= MOST_HEADER,
        f"a frame of {len(content)} bytes claims a header of {size}.",
    )
    header = bytes(content[8 : 8 + size])
    try:
        facts = json.loads(header.decode("ascii"))
        kind, text = facts["kind"], facts["text"]
        require(isinstance(kind, str) and isinstance(text, str), "a frame has no kind and text.")
        arrays, end = _read_arrays(facts["arrays"], content, 8 + size)
        again = _header(kind, text, arrays)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as fault:
        raise ExchangeError(f"a frame cannot be read: {type(fault).__name__}") from fault
    require(
        again == header and end == len(content),
        "a frame is not as it would be written again; a message has one frame only.",
    )
    return Packed(kind, text, arrays)


def _header(kind: str, text: str, arrays: Mapping[str, Array]) -> bytes:
    named = [[name, a.dtype.str, list(a.shape)] for name, a in arrays.items()]
    facts = {"kind": kind, "text": text, "arrays": named}
    return json.dumps(facts, separators=(",", ":")).encode("ascii")


def _read_arrays(
    named: Any, content: bytes | bytearray, start: int
) -> tuple[dict[str, Array], int]:
    """The arrays that a header names, and where they end."""
    arrays: dict[str, Array] = {}
    for name, dtype, shape in named:
        require(isinstance(name, str), "a frame has an array without a name.")
        require(not arrays or name > next(reversed(arrays)), "a frame's arrays are in no order.")
        require(dtype in DTYPES, f"a frame has an array of dtype {dtype!r}.")
        legal = len(shape) <= MOST_DIMENSIONS and all(
            type(length) is int and 0 <= length <= MOST_FRAME for length in shape
        )
        require(legal, f"a frame has an array of shape {shape!r}.")
        kind, count = np.dtype(dtype), math.prod(shape)
        require(start + count * kind.itemsize <= len(content), "a frame ends in an array.")
        array = np.frombuffer(content, kind, count, start) if count else np.empty(0, kind)
        arrays[name] = array.reshape(shape).copy()
        start += arrays[name].nbytes
    return arrays, start
