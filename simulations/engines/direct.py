"""The operator and its firms in one process, by plain calls: for thousands of small studies.

The firms, their walls and what is accepted of them are those of every engine; only messages are not
packed. A firm that fails ends its study, so that a sweep's row names what went wrong; elsewhere it
is left out of a round, and what it said stays with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, final

import numpy as np

from parties.exchange import (
    Answer,
    Array,
    Declaration,
    Enrol,
    Measure,
    Offer,
    Query,
    Refusal,
    Request,
    pack,
)
from parties.memory import Memory
from server.intake import Limits, UnacceptableError, accept
from server.transport import Answers, enough
from simulations.engines import in_turn

Call = Callable[[], Answer]
Together = Callable[[Sequence[Call]], Sequence[Answer]]
"""Makes several calls and gives their answers in order; the first that fails, raises."""


class Told(Protocol):
    """A firm, and what it remembers of one study and seed."""

    @property
    def pure(self) -> str:
        """Names the firm, where its answers follow from the questions alone; else ""."""

    def answer(self, request: Request) -> Answer: ...


@final
class Direct:
    """An operator's way to firms in the same process (`server.docket.Operator`).

    Args:
        firms: by name.
        limits: what is accepted of them.
        remembered: answers of firms whose answers follow from the questions alone.
        together: how the firms that are asked at once are called.
    """

    def __init__(
        self,
        firms: Mapping[str, Told],
        limits: Limits,
        remembered: AnswerCache,
        together: Together = in_turn,
    ) -> None:
        self._firms, self._limits, self._remembered = firms, limits, remembered
        self._together = together
        self._declared: dict[str, Declaration] = {}

    def enrol(self, seed: int) -> Mapping[str, Declaration]:
        """What every firm declares."""
        told = self._deliver(dict.fromkeys(self._firms, Enrol(seed)))
        enough(told, self._limits.minimum_firms)
        self._declared = {n: d for n, d in told.usable.items() if isinstance(d, Declaration)}
        return self._declared

    def ask(self, requests: Mapping[str, Request], minimum: int | None = None) -> Answers:
        """Ask each named firm its own question, and check what comes back.

        Raises:
            TooFewFirmsError: fewer than `minimum` (default: the limits') usable answers.
        """
        least = self._limits.minimum_firms if minimum is None else minimum
        return enough(self._deliver(requests), least)

    def _deliver(self, requests: Mapping[str, Request]) -> Answers:
        names = sorted(requests)
        answers = Answers()
        given = self._together([self._call(name, requests[name]) for name in names])
        for name, answer in zip(names, given, strict=True):
            if isinstance(answer, Refusal):
                answers.refused[name] = answer.reason
                continue
            try:
                known = self._declared.get(name)
                answers.usable[name] = accept(requests[name], answer, known, self._limits)
            except UnacceptableError as fault:
                answers.faulty[name] = str(fault)
        return answers

    def _call(self, name: str, request: Request) -> Call:
        firm = self._firms[name]

        def call() -> Answer:
            # What firms play is never asked twice, and its tables cost more to read than to use.
            if not firm.pure or not isinstance(request, Enrol | Offer | Query | Measure):
                return firm.answer(request)
            key = f"{firm.pure}/{_digest(request)}"
            found = self._remembered.get(key)
            if found is None:
                found = firm.answer(request)
                self._remembered.put(key, found)
            return found

        return call


@final
class AnswerCache:
    """Answers by the firm and its question; the longest unused go first.

    Args:
        room: bytes of arrays that it holds at most.
    """

    def __init__(self, room: int = 1 << 28) -> None:
        self._room, self._held = room, 0
        self._answers: OrderedDict[str, tuple[Answer, int]] = OrderedDict()

    def get(self, key: str) -> Answer | None:
        if key not in self._answers:
            return None
        self._answers.move_to_end(key)
        return self._answers[key][0]

    def put(self, key: str, answer: Answer) -> None:
        """Remember an answer; from now on nobody may write to its arrays."""
        arrays = _arrays(answer)
        for array in arrays:
            array.flags.writeable = False
        size = 1000 + sum(array.nbytes for array in arrays)
        if size > self._room // 4 or key in self._answers:
            return
        self._answers[key] = (answer, size)
        self._held += size
        while self._held > self._room:
            self._held -= self._answers.popitem(last=False)[1][1]


def _arrays(value: object) -> list[Array]:
    """All arrays of a message."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, Mapping):
        return [array for part in value.values() for array in _arrays(part)]
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return [array for name in names for array in _arrays(getattr(value, name))]
    return []


def _digest(request: Request) -> str:
    """A hash of all that a question says."""
    packed = pack(request)
    told = hashlib.blake2b(f"{packed.kind} {packed.text}".encode(), digest_size=16)
    for name, array in sorted(packed.arrays.items()):
        told.update(f"{name} {array.dtype} {array.shape}".encode())
        told.update(np.ascontiguousarray(array).tobytes())
    return told.hexdigest()


@final
class OneFirm:
    """A firm with its memory (`Told`).

    Args:
        answer: the firm's own; memory: of this study and seed.
        pure: see `Told`.
    """

    def __init__(
        self, answer: Callable[[Request, Memory], Answer], memory: Memory, pure: str = ""
    ) -> None:
        self._answer, self._memory, self._pure = answer, memory, pure

    @property
    def pure(self) -> str:
        return self._pure

    def answer(self, request: Request) -> Answer:
        return self._answer(request, self._memory)
