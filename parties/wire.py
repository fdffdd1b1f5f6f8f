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


def write_record(packed: Packed) -> RecordDict:
    """A packed message as Flower records: "text" (kind and JSON) and "arrays"."""
    arrays = {name: FlowerArray(value) for name, value in packed.arrays.items()}
    text = ConfigRecord({"kind": packed.kind, "text": packed.text})
    return RecordDict({"text": text, "arrays": ArrayRecord(arrays)})


def read_record(record: RecordDict) -> Packed:
    """The reverse of `write_record`."""
    if set(record) - {"text", "arrays", "tag"}:
        raise ExchangeError(f"a message has the records {sorted(record)}; legal: text, arrays, tag")
    text, arrays = record.config_records["text"], record.array_records["arrays"]
    return Packed(
        str(text["kind"]), str(text["text"]), {name: a.numpy() for name, a in arrays.items()}
    )


def write_records(tagged: Sequence[tuple[str, Packed]], framed: bool = False) -> RecordDict:
    """Messages with their tags, as one.

    Args:
        framed: as one array of bytes, whatever their number: what Flower carries between machines
            it carries tensor by tensor, with a request each. Needed for more than one.
    """
    if not framed:
        ((tag, packed),) = tagged
        record = write_record(packed)
        record["tag"] = ConfigRecord({"tag": tag})
        return record
    frames = [write_frame(packed) for _, packed in tagged]
    content = np.frombuffer(b"".join(frames), np.uint8)
    about: dict[str, Any] = {"tags": [tag for tag, _ in tagged], "sizes": list(map(len, frames))}
    return RecordDict(
        {"about": ConfigRecord(about), FRAMES: ArrayRecord({FRAMES: FlowerArray(content)})}
    )


def is_framed(record: RecordDict) -> bool:
    """Whether messages came as one array of bytes: then the answers go back in that form."""
    return FRAMES in record


def read_records(record: RecordDict) -> list[tuple[str, Packed]]:
    """The reverse of `write_records`.

    Raises:
        ExchangeError: a record is missing, or is not what it says.
    """
    if not is_framed(record):
        return [(str(record.config_records["tag"]["tag"]), read_record(record))]
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
