"""Who answers the operator's requests, as the firm's ClientApp sees it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from parties.exchange import Answer, Request
from parties.memory import Memory


class Answering(Protocol):
    """Whoever answers requests: a `Firm`, or the way to its desk."""

    def answer(self, request: Request, memory: Memory) -> Answer: ...


@runtime_checkable
class Tagging(Protocol):
    """One who must know which question it is that he answers."""

    def under(self, tag: str) -> Answering:
        """Who answers the question that the operator has given this tag."""
