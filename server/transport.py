"""Transport: asks named firms through a Flower Grid. Fixed order, bounded waiting, named faults."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, final
from uuid import uuid4

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from parties.exchange import (
    Answer,
    Declaration,
    Enrol,
    ExchangeError,
    Fault,
    FedpactError,
    Measure,
    Offer,
    Packed,
    Query,
    Refusal,
    Request,
    pack,
    unpack,
)
from parties.wire import read_record, write_record
from server.intake import Limits, UnacceptableError, accept
from server.patience import Patience

log = logging.getLogger("fedpact")

OPERATOR = "operator"
NODE = "node_"  # and its number: a node that has not said its name


@final
class TooFewFirmsError(FedpactError):
    """A round got fewer usable answers than the run needs."""


@final
@dataclass(frozen=True)
class Sent:
    """One message of the run, for the audit: who sent what to whom, and how large it was."""

    seed: int
    contract: str
    round: int
    sender: str
    receiver: str
    kind: str
    carries: str
    bytes: int


@final
@dataclass(frozen=True)
class Answers:
    """What came of one question to several firms.

    Args:
        usable: checked answers by firm.
        refused: firms that refused, with their reason (a valid answer, not a fault).
        faulty: firms whose answer was not accepted, with what is wrong with it.
        silent: firms that could not answer (crashed, unreachable, too late), with the cause.
    """

    usable: dict[str, Answer] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    faulty: dict[str, str] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)

    @property
    def first_fault(self) -> str:
        """The first firm, by name, that did not give a usable answer, and why."""
        for kind, firms in (
            ("refused", self.refused),
            ("sent an unacceptable answer", self.faulty),
            ("did not answer", self.silent),
        ):
            for name in sorted(firms):
                return f"{name} {kind}: {firms[name]}"
        return "no firm was asked"


def enough(answers: Answers, least: int) -> Answers:
    """The answers, if they are enough; firms that are left out are named in the log.

    Raises:
        TooFewFirmsError: fewer than `least` usable answers and refusals.
    """
    for name, reason in sorted({**answers.faulty, **answers.silent}.items()):
        log.warning("%s is left out of this round: %s", name, reason)
    if len(answers.usable) + len(answers.refused) < least:
        raise TooFewFirmsError(
            f"{len(answers.usable)} usable answers, the round needs {least}: "
            f"{answers.first_fault}. Mend that firm and go on with resume=DIR."
        )
    return answers


class Seals(Protocol):
    """How models that cross are signed (`simulations.deploy.seals`, in practice)."""

    def put(self, request: Request) -> Request:
        """The request, with every model that it carries signed."""
        ...

    def check(self, request: Request, answer: Answer, name: str) -> None:
        """Raises an UnacceptableError where a firm's model is not signed by it."""
        ...


@final
@dataclass(frozen=True)
class Apart:
    """What a deployment adds: firms are on machines of their own, and need not be believed.

    Args:
        study: sha256 of the study, which every firm compares with the one that it agreed to.
        firm_of: the grid -> node id -> the firm whose key that node has.
        seals: how models that cross are signed.
        patience: when a firm is asked again.
    """

    study: str
    firm_of: Callable[[Grid], Mapping[int, str]]
    seals: Seals
    patience: Patience = field(default_factory=Patience)


class Transport:
    """The operator's way to its firms.

    Args:
        grid: any Flower Grid.
        firms: the names expected; nobody else is heard.
        limits: bounds of what is accepted and of the wait.
        audit: told of every message, sender to receiver.
        apart: what a deployment adds; None: a simulation.
    """

    def __init__(
        self,
        grid: Grid,
        firms: tuple[str, ...],
        limits: Limits,
        audit: Callable[[Sent], None] = lambda sent: None,
        apart: Apart | None = None,
    ) -> None:
        self._grid, self.firms, self._limits, self._audit = (
            grid,
            tuple(sorted(firms)),
            limits,
            audit,
        )
        self._apart = apart
        self._run = uuid4().hex[:12]
        self._nodes: dict[str, int] = {}
        self._declared: dict[str, Declaration] = {}

    # --------------------------------------------------------------------------- enrolment

    def enrol(self, seed: int) -> dict[str, Declaration]:
        """Ask every node who it is; wait, within the bound, until all named firms have answered.

        Raises:
            TooFewFirmsError: fewer than the minimum came, or a name came twice.
        """
        deadline = time.monotonic() + self._limits.wait_s
        while True:
            answers = self._enrol_once(seed, deadline)
            missing = [name for name in self.firms if name not in answers.usable]
            told = {**answers.usable, **answers.refused, **answers.faulty, **answers.silent}
            heard = [name for name in told if name in self.firms or name.startswith(NODE)]
            # Only nodes that have not come yet are worth waiting for; strangers do not count.
            if not missing or time.monotonic() >= deadline or len(heard) >= len(self.firms):
                break
            time.sleep(0.2)
        if len(answers.usable) < self._limits.minimum_firms:
            raise TooFewFirmsError(
                f"{len(answers.usable)} of {len(self.firms)} firms enrolled, the run needs "
                f"{self._limits.minimum_firms}. Missing: {', '.join(missing)}. "
                f"{answers.first_fault}. Start those firms, or lower limits.minimum_firms."
            )
        self._declared = {
            name: answer
            for name, answer in answers.usable.items()
            if isinstance(answer, Declaration)
        }
        return self._declared

    def _enrol_once(self, seed: int, deadline: float) -> Answers:
        nodes = sorted(self._grid.get_node_ids())
        if self._apart is not None and self._nodes:
            # Who is known is waited for, though it may be away right now.
            nodes = sorted({*nodes, *self._nodes.values()})
        keys = {} if self._apart is None else self._apart.firm_of(self._grid)
        # Who is behind a node is not known yet: nodes are numbered until they say their name.
        numbered = {f"{NODE}{place:04}": node for place, node in enumerate(nodes)}
        question = Enrol(seed, "" if self._apart is None else self._apart.study)
        raw = self._deliver(numbered, dict.fromkeys(numbered, question), deadline)
        found = Answers(faulty=raw.faulty, silent=raw.silent, refused=raw.refused)
        self._nodes = {}
        for number, node in numbered.items():
            answer = raw.usable.get(number)
            if not isinstance(answer, Declaration):
                continue
            if self._apart is not None and keys.get(node) != answer.firm:
                found.faulty[number] = (
                    f"says it is {answer.firm}, and its key is that of {keys.get(node, 'nobody')}"
                )
                log.warning("a node is not heard: it %s", found.faulty[number])
            elif answer.firm not in self.firms:
                found.faulty[answer.firm] = "is not a firm of this study"
            elif answer.firm in found.usable:
                raise TooFewFirmsError(f"Two nodes say they are {answer.firm}. Stop one of them.")
            else:
                found.usable[answer.firm] = answer
                self._nodes[answer.firm] = node
        return found

    # --------------------------------------------------------------------------- questions

    def ask(self, requests: Mapping[str, Request], minimum: int | None = None) -> Answers:
        """Ask each named firm its own question, all at once, and check what comes back.

        Raises:
            TooFewFirmsError: fewer than `minimum` (default: the run's) usable answers and refusals.
        """
        deadline = time.monotonic() + self._limits.wait_s
        known = {name: request for name, request in requests.items() if name in self._nodes}
        answers = self._deliver(self._nodes, known, deadline)
        for name in sorted(set(requests) - set(known)):
            answers.silent[name] = "it never enrolled"
        return enough(answers, self._limits.minimum_firms if minimum is None else minimum)

    def _deliver(
        self, nodes: Mapping[str, int], requests: Mapping[str, Request], deadline: float
    ) -> Answers:
        asked, make = {}, dict[str, Callable[[], Message]]()
        # One record a distinct question: engines send a broadcast's arrays once.
        records: dict[int, tuple[Packed, RecordDict]] = {}
        for name in sorted(requests):
            request = requests[name]
            if id(request) not in records:
                records[id(request)] = self._record(request)
            packed, content = records[id(request)]
            make[name] = partial(Message, content, nodes[name], _verb(request))
            asked[nodes[name]] = name
            self._audit(_sent(request, packed, OPERATOR, name))
        if self._apart is not None:
            found = self._apart.patience.replies(self._grid, make, deadline)
            return self._collect(sorted(found.items()), requests)
        wait = max(deadline - time.monotonic(), 0.1)
        messages = [question() for question in make.values()]
        replies = list(self._grid.send_and_receive(messages, timeout=wait)) if messages else []
        named = [(asked.get(reply.metadata.src_node_id, ""), reply) for reply in replies]
        return self._collect(sorted(named, key=lambda pair: pair[0]), requests)

    def _collect(
        self, replies: list[tuple[str, Message]], requests: Mapping[str, Request]
    ) -> Answers:
        answers = Answers()
        for name, reply in replies:
            if not name or name in answers.usable:
                log.warning("a reply nobody waits for was dropped (%s)", name or "unknown node")
                continue
            if reply.has_error():
                answers.silent[name] = reply.error.reason or f"error {reply.error.code}"
                continue
            try:
                answer = self._read(reply.content, requests[name], name)
            except (ExchangeError, UnacceptableError) as fault:
                answers.faulty[name] = str(fault)
                continue
            if isinstance(answer, Refusal):
                answers.refused[name] = answer.reason
            elif isinstance(answer, Fault):
                answers.silent[name] = f"it failed with {answer.kind} (its own log says why)"
            else:
                answers.usable[name] = answer
        heard = {*answers.usable, *answers.refused, *answers.faulty, *answers.silent}
        for name in sorted(set(requests) - heard):
            answers.silent[name] = f"no answer within {self._limits.wait_s:g} s"
        return answers

    def _read(self, content: RecordDict, request: Request, name: str) -> Answer:
        try:
            tag, packed = content.config_records["tag"]["tag"], read_record(content)
        except (KeyError, ValueError, TypeError, EOFError) as fault:
            raise ExchangeError(f"a reply without its records: {fault}") from fault
        if tag != self._tag(request):
            raise UnacceptableError(f"answers {tag!r}, the open question is {self._tag(request)!r}")
        answer = unpack(packed)
        if not isinstance(answer, Answer):
            raise UnacceptableError(f"sent a request ({packed.kind}) as an answer")
        sender = answer.firm if isinstance(answer, Declaration) else name
        self._audit(_sent(request, packed, sender, OPERATOR))
        if self._apart is not None:
            self._apart.seals.check(request, answer, name)
        return accept(request, answer, self._declared.get(name), self._limits)

    def _record(self, request: Request) -> tuple[Packed, RecordDict]:
        packed = pack(request if self._apart is None else self._apart.seals.put(request))
        content = write_record(packed)
        content["tag"] = ConfigRecord({"tag": self._tag(request)})
        return packed, content

    def _tag(self, request: Request) -> str:
        """Names the run and the question, so that another's answer is told from this one's."""
        contract = "" if isinstance(request, Enrol) else request.terms.contract
        turn = request.round if isinstance(request, Offer) else 0
        part = getattr(request, "part", "")
        kind = type(request).__name__
        return f"{self._run}/{request.seed}/{contract}/{turn}/{kind}{part}"


def _verb(request: Request) -> str:
    """Flower's message type."""
    match request:
        case Offer():
            return "train"
        case Measure():
            return "evaluate"
        case _:
            return "query"


def _sent(request: Request, packed: Packed, sender: str, receiver: str) -> Sent:
    """One line of the audit: the message, and the names of the arrays that it carries."""
    carries = " ".join(sorted(packed.arrays))
    if isinstance(request, Query):
        carries = f"{request.part}: {carries}".strip(": ")
    return Sent(
        seed=request.seed,
        contract="" if isinstance(request, Enrol) else request.terms.contract,
        round=request.round if isinstance(request, Offer) else 0,
        sender=sender,
        receiver=receiver,
        kind=packed.kind,
        carries=carries,
        bytes=len(packed.text.encode()) + sum(a.nbytes for a in packed.arrays.values()),
    )
