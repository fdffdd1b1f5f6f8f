"""A firm in the process that it was built in: with its memory, and what is told of its answers.

Nothing of the operator is imported here: a worker that holds firms only is the smaller for it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np

from parties.exchange import Answer, Array, Facts, Fault, Request, pack
from parties.exchange.packing import PLAIN
from parties.memory import Memory

log = logging.getLogger("fedpact")

Call = Callable[[], Answer]
Together = Callable[[Sequence[Call]], Sequence[Answer]]
"""Makes several calls and gives their answers in order; the first that fails, raises."""


@final
@dataclass(frozen=True)
class Reply:
    """What came of a question to a firm.

    Args:
        answer: None: there is none.
        facts: of the answer as a message, where they are asked for.
        lost: why there is no answer.
    """

    answer: Answer | None
    facts: Facts | None = None
    lost: str = ""


class Told(Protocol):
    """A firm, and what it remembers of one study."""

    @property
    def pure(self) -> str:
        """Names the firm, where its answers follow from the questions alone; else ""."""

    def answer(self, request: Request) -> Answer: ...


def reply_of(answer: Answer, facts: bool) -> Reply:
    """An answer, with what the audit wants to know of it."""
    return Reply(answer, Facts.of(pack(answer)) if facts else None)


def keep_from_writing(value: object) -> None:
    """Let nobody write to the arrays of a message."""
    for array in arrays_of(value):
        array.flags.writeable = False


@final
class OneFirm:
    """A firm with its memory (`Told`).

    Args:
        name: its own.
        answer: the firm's own; memory: what it remembers.
        pure: see `Told`.
        spared: what goes wrong in it is its own fault only, and goes to the log; else it is raised.
    """

    def __init__(
        self,
        name: str,
        answer: Callable[[Request, Memory], Answer],
        memory: Memory,
        pure: str = "",
        spared: bool = False,
    ) -> None:
        self._name, self._answer, self._memory = name, answer, memory
        self._pure, self._spared = pure, spared

    @property
    def pure(self) -> str:
        return self._pure

    def answer(self, request: Request) -> Answer:
        try:
            return self._answer(request, self._memory)
        except Exception as fault:
            if not self._spared:
                raise
            # The text may quote private data: it goes to the firm's own log, not to the operator.
            log.exception("%s could not answer", self._name)
            return Fault(type(fault).__name__)


def arrays_of(value: object) -> list[Array]:
    """All arrays of a message."""
    if type(value) in PLAIN:
        return []
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, Mapping):
        return [array for part in value.values() for array in arrays_of(part)]
    if dataclasses.is_dataclass(value):
        return [array for part in vars(value).values() for array in arrays_of(part)]
    return []
