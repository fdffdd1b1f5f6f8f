"""What a firm keeps between messages."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import final

from parties.exchange import Array


@final
@dataclass(frozen=True)
class Memory:
    """What a firm keeps between messages. Losing it costs time, never a different answer.

    Args:
        models: name -> arrays; the firm's own model of the current seed.
        notes: name -> text; the terms it accepted.
    """

    models: MutableMapping[str, dict[str, Array]] = field(default_factory=dict)
    notes: MutableMapping[str, str] = field(default_factory=dict)
