"""Packed messages as Flower records, for both sides of the wall. No pickle on either."""

from __future__ import annotations

from collections.abc import Sequence

from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from parties.exchange import ExchangeError, Packed

MOST_TOGETHER = 10_000


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


def write_records(tagged: Sequence[tuple[str, Packed]]) -> RecordDict:
    """Several messages as one, each with its tag: "text", "arrays", "tag", then "text.1", ..."""
    together = RecordDict()
    for place, (tag, packed) in enumerate(tagged):
        end = f".{place}" if place else ""
        one = write_record(packed)
        together[f"text{end}"], together[f"arrays{end}"] = one["text"], one["arrays"]
        together[f"tag{end}"] = ConfigRecord({"tag": tag})
    return together


def read_records(together: RecordDict) -> list[tuple[str, Packed]]:
    """The reverse of `write_records`.

    Raises:
        ExchangeError: a record is missing, or there are others.
    """
    count = len(together) // 3
    ends = ["", *(f".{place}" for place in range(1, min(count, MOST_TOGETHER)))]
    names = {f"{name}{end}" for end in ends for name in ("text", "arrays", "tag")}
    if set(together) != names:
        raise ExchangeError(
            f"a message has the records {sorted(together)[:9]}; legal: text, arrays, tag, and the "
            "same with .1, .2, ... of further messages"
        )
    read = []
    for end in ends:
        one = RecordDict({"text": together[f"text{end}"], "arrays": together[f"arrays{end}"]})
        read.append((str(together.config_records[f"tag{end}"]["tag"]), read_record(one)))
    return read
