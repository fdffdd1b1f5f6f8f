"""Packed messages as Flower records, for both sides of the wall. No pickle on either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from parties.exchange import ExchangeError, Packed
from parties.exchange.frames import read_frame, write_frame

FRAMES = "frames"


def write_records(tagged: Sequence[tuple[str, Packed]]) -> RecordDict:
    """Messages with their tags, as one array of bytes, whatever their number.

    What Flower carries it carries tensor by tensor, with a request each between machines.
    """
    frames = [write_frame(packed) for _, packed in tagged]
    content = np.frombuffer(b"".join(frames), np.uint8)
    about: dict[str, Any] = {"tags": [tag for tag, _ in tagged], "sizes": list(map(len, frames))}
    return RecordDict(
        {"about": ConfigRecord(about), FRAMES: ArrayRecord({FRAMES: FlowerArray(content)})}
    )


def read_records(record: RecordDict) -> list[tuple[str, Packed]]:
    """The reverse of `write_records`.

    Raises:
        ExchangeError: a record is missing or too many, or is not what it says.
    """
    if set(record) != {"about", FRAMES}:
        raise ExchangeError(f"a message has the records {sorted(record)}; legal: about, {FRAMES}")
    about = record.config_records["about"]
    content = record.array_records[FRAMES][FRAMES].numpy()
    tags, sizes = about["tags"], about["sizes"]
    if not isinstance(tags, list) or not isinstance(sizes, list) or len(tags) != len(sizes):
        raise ExchangeError("messages in one frame need a tag and a size each.")
    whole = [size for size in sizes if type(size) is int and size > 0]
    fits = content.dtype == np.uint8 and content.ndim == 1 and sum(whole) == content.size
    if not fits or len(whole) != len(sizes):
        raise ExchangeError(f"messages of {sizes[:9]} bytes do not make up {content.size}.")
    ends, data = np.cumsum([0, *whole]).tolist(), content.tobytes()
    pairs = zip(tags, ends[:-1], ends[1:], strict=True)
    return [(str(tag), read_frame(data[begin:end])) for tag, begin, end in pairs]
