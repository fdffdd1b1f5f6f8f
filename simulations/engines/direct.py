"""The operator and its firms without messages of Flower's: plain calls, here or in Ray's actors.

The firms, their walls, what is accepted of them and the audit are those of every engine; questions
and answers are the same values, only not made into bytes where nobody is far away. Their arrays
cannot be written to, so that no firm changes what another one holds.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, final

import numpy as np

from parties.exchange import (
    Answer,
    Declaration,
    Enrol,
    Facts,
    Fault,
    Measure,
    Offer,
    Query,
    Refusal,
    Request,
    pack,
)
from server.intake import Limits, UnacceptableError, accept
from server.transport import OPERATOR, Answers, Sent, check_enrolled, enough, sent
from simulations.engines import in_turn
from simulations.engines.one_firm import (
    Reply,
    Together,
    Told,
    arrays_of,
    keep_from_writing,
    reply_of,
)

log = logging.getLogger("fedpact")


class Crew(Protocol):
    """Firms that are asked at once."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""

    def ask(
        self, requests: Mapping[str, Request], wait_s: float, facts: bool
    ) -> Mapping[str, Reply]:
        """A reply of each named firm to its own question.

        Args:
            wait_s: seconds after which a firm has not answered, where that can be told.
            facts: whether they are wanted of the answers.
        """


@final
class Direct:
    """An operator's way to firms that are called (`server.docket.Operator`).

    Args:
        crew: the firms.
        limits: what is accepted of them.
        audit: told of every message, as if it had been sent; None: nobody wants to know.
    """

    def __init__(
        self, crew: Crew, limits: Limits, audit: Callable[[Sent], None] | None = None
    ) -> None:
        self._crew, self._limits, self._audit = crew, limits, audit
        self._declared: dict[str, Declaration] = {}

    def enrol(self, seed: int) -> Mapping[str, Declaration]:
        """What every firm declares.

        Raises:
            TooFewFirmsError: fewer than the minimum do.
        """
        names = self._crew.names
        told = self._deliver(dict.fromkeys(names, Enrol(seed)))
        check_enrolled(told, names, self._limits)
        self._declared = {n: d for n, d in told.usable.items() if isinstance(d, Declaration)}
        return self._declared

    def ask(self, requests: Mapping[str, Request], minimum: int | None = None) -> Answers:
        """Ask each named firm its own question, and check what comes back.

        Raises:
            TooFewFirmsError: fewer than `minimum` (default: the limits') usable answers.
        """
        least = self._limits.minimum_firms if minimum is None else minimum
        known = {name: r for name, r in requests.items() if name in self._declared}
        answers = self._deliver(known)
        answers.silent.update(dict.fromkeys(set(requests) - set(known), "it never enrolled"))
        return enough(answers, least)

    def _deliver(self, requests: Mapping[str, Request]) -> Answers:
        names = sorted(requests)
        self._seal(requests, names)
        replies = self._crew.ask(requests, self._limits.wait_s, self._audit is not None)
        answers = Answers()
        for name in names:
            reply, request = replies[name], requests[name]
            if self._audit is not None and reply.facts is not None:
                self._audit(sent(request, reply.facts, name, OPERATOR))
            match reply.answer:
                case None:
                    answers.silent[name] = reply.lost
                case Fault(kind):
                    answers.silent[name] = f"it failed with {kind} (its own log says why)"
                case Refusal(reason):
                    answers.refused[name] = reason
                case answer:
                    try:
                        known = self._declared.get(name)
                        answers.usable[name] = accept(request, answer, known, self._limits)
                    except UnacceptableError as fault:
                        answers.faulty[name] = str(fault)
        return answers

    def _seal(self, requests: Mapping[str, Request], names: Sequence[str]) -> None:
        """From now on nobody may write to what is asked; and the audit is told of it."""
        seen: dict[int, Facts | None] = {}
        for name in names:
            request = requests[name]
            if id(request) not in seen:
                keep_from_writing(request)
                seen[id(request)] = Facts.of(pack(request)) if self._audit is not None else None
            facts = seen[id(request)]
            if self._audit is not None and facts is not None:
                self._audit(sent(request, facts, OPERATOR, name))


# ------------------------------------------------------------------------- firms of this process


@final
class Here:
    """Firms of this process (`Crew`).

    Args:
        firms: by name.
        together: how those that are asked at once are called.
        remembered: answers of firms whose answers follow from the questions alone.
    """

    def __init__(
        self,
        firms: Mapping[str, Told],
        together: Together = in_turn,
        remembered: AnswerCache | None = None,
    ) -> None:
        self._firms, self._together, self._remembered = firms, together, remembered

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._firms))

    def ask(
        self, requests: Mapping[str, Request], wait_s: float, facts: bool
    ) -> Mapping[str, Reply]:
        """The replies. In one process nothing can be interrupted, so that `wait_s` is not used."""
        names = sorted(requests)
        given = self._together([partial(self._call, name, requests[name]) for name in names])
        for answer in given:
            keep_from_writing(answer)
        return {n: reply_of(answer, facts) for n, answer in zip(names, given, strict=True)}

    def _call(self, name: str, request: Request) -> Answer:
        firm, known = self._firms[name], self._remembered
        # What firms play is never asked twice, and its tables cost more to read than to use.
        if (
            known is None
            or not firm.pure
            or not isinstance(request, Enrol | Offer | Query | Measure)
        ):
            return firm.answer(request)
        key = f"{firm.pure}/{_digest(request)}"
        found = known.get(key)
        if found is None:
            found = firm.answer(request)
            known.put(key, found)
        return found


# --------------------------------------------------------------------------- what was said before


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
        keep_from_writing(answer)
        size = 1000 + sum(array.nbytes for array in arrays_of(answer))
        if size > self._room // 4 or key in self._answers:
            return
        self._answers[key] = (answer, size)
        self._held += size
        while self._held > self._room:
            self._held -= self._answers.popitem(last=False)[1][1]


def _digest(request: Request) -> str:
    """A hash of all that a question says."""
    packed = pack(request)
    told = hashlib.blake2b(f"{packed.kind} {packed.text}".encode(), digest_size=16)
    for name, array in sorted(packed.arrays.items()):
        told.update(f"{name} {array.dtype} {array.shape}".encode())
        told.update(np.ascontiguousarray(array).tobytes())
    return told.hexdigest()
