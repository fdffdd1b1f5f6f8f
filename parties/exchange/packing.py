"""How a message becomes text and arrays, and is read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from parties.exchange.answers import (
    Actions,
    Declaration,
    Fault,
    Problem,
    Refusal,
    ReuseReport,
    Revealed,
    Scores,
    Served,
    Settled,
    Trained,
)
from parties.exchange.checks import Array, ExchangeError
from parties.exchange.masks import (
    Advertised,
    Deal,
    Dealt,
    Keys,
    Masked,
    Masking,
    Shares,
    Unmask,
)
from parties.exchange.requests import Enrol, Measure, Offer, Play, Query, Reveal, Serve, Settle
from parties.exchange.values import DecisionRule, Predictions, Seal, Terms, Weights

Asking = Offer | Query | Play | Serve | Measure | Reveal | Settle | Keys | Deal | Unmask
"""What is asked under a contract's terms."""
Request = Enrol | Asking
Answer = (
    Declaration
    | Trained
    | Predictions
    | Actions
    | Served
    | Scores
    | Revealed
    | Settled
    | Advertised
    | Dealt
    | Shares
    | Refusal
    | Fault
)
Message = Request | Answer

TYPES: Mapping[str, type] = {
    kind.__name__: kind
    for kind in (
        *(Terms, Weights, Seal, DecisionRule, ReuseReport, Problem, Masking, Masked),
        *(Enrol, Offer, Query, Play, Serve, Measure, Reveal, Settle, Keys, Deal, Unmask),
        *(Declaration, Trained, Predictions, Actions, Served, Scores, Revealed, Settled),
        *(Advertised, Dealt, Shares),
        *(Refusal, Fault),
    )
}
PLAIN = frozenset({str, int, float, bool, type(None)})
_MESSAGES = (*Request.__args__, *Answer.__args__)


@final
@dataclass(frozen=True)
class Packed:
    """A message as text and arrays: what any transport can carry, with no pickle in it."""

    kind: str
    text: str
    arrays: Mapping[str, Array] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Facts:
    """What the audit says of a message, whoever got it: its kind, its arrays by name, its size."""

    kind: str
    carries: str
    bytes: int

    @classmethod
    def of(cls, packed: Packed) -> Facts:
        size = len(packed.text.encode()) + sum(a.nbytes for a in packed.arrays.values())
        return cls(packed.kind, " ".join(sorted(packed.arrays)), size)


def pack(message: Message) -> Packed:
    """Split a message into JSON text and named arrays.

    >>> unpack(pack(Refusal("not for sale")))
    Refusal(reason='not for sale')
    """
    arrays: dict[str, Array] = {}

    def plain(value: Any, path: str) -> Any:
        if type(value) in PLAIN:
            return value
        if isinstance(value, np.ndarray):
            arrays[path] = value
            return {"array": path}
        kind = type(value).__name__
        if TYPES.get(kind) is type(value):
            inner = {name: plain(part, f"{path}.{name}") for name, part in vars(value).items()}
            return {"type": kind, "fields": inner}
        if isinstance(value, Mapping):
            return {"map": {key: plain(item, f"{path}.{key}") for key, item in value.items()}}
        if isinstance(value, tuple):
            return [plain(item, f"{path}.{i}") for i, item in enumerate(value)]
        return value

    kind = type(message).__name__
    return Packed(kind, json.dumps(plain(message, kind)), arrays)


def unpack(packed: Packed) -> Message:
    """Rebuild a message; anything that is not exactly one of the declared types is refused.

    Raises:
        ExchangeError: unknown type, missing or extra field, value out of its range.
    """

    def rich(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(rich(item) for item in value)
        if not isinstance(value, dict):
            return value
        if set(value) == {"array"}:
            used.add(value["array"])
            return packed.arrays[value["array"]]
        if set(value) == {"map"}:
            return {str(key): rich(item) for key, item in value["map"].items()}
        if set(value) == {"type", "fields"}:
            return TYPES[value["type"]](**{k: rich(v) for k, v in value["fields"].items()})
        raise ExchangeError(f"a packed value has the keys {sorted(value)}")

    used: set[str] = set()
    try:
        message = rich(json.loads(packed.text))
    except ExchangeError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        problem = f"{type(fault).__name__}: {fault}"
        raise ExchangeError(f"a {packed.kind!r} message cannot be read: {problem}") from fault
    if not isinstance(message, _MESSAGES) or type(message).__name__ != packed.kind:
        raise ExchangeError(
            f"a message says it is {packed.kind!r} but holds {type(message).__name__}; "
            f"legal are {', '.join(sorted(t.__name__ for t in _MESSAGES))}."
        )
    if used != set(packed.arrays):
        stray = ", ".join(sorted(set(packed.arrays) - used))
        raise ExchangeError(f"a {packed.kind} carries arrays that belong to no field: {stray}")
    checked: Message = message
    return checked
