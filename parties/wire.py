"""Packed messages as Flower records, for both sides of the wall. No pickle on either."""

from __future__ import annotations

from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from parties.exchange import ExchangeError, Packed


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
