"""Transport: asks named firms through a Flower Grid. Fixed order, bounded waiting, named faults."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, final
from uuid import uuid4

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from parties.exchange import (
    Answer,
    Declaration,
    Enrol,
    ExchangeError,
    Facts,
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
from parties.wire import read_records, write_records
from server.intake import Limits, UnacceptableError, accept
from server.patience import Patience

log = logging.getLogger("fedpact")

OPERATOR = "operator"
GO_ON = "Mend that firm and go on (./run.sh; in a simulation resume=DIR): what is finished is kept."
NODE = "node_"  # and its number: a node that has not said its name


@final
class TooFewFirmsError(FedpactError):
    """A round got fewer usable answers than the run needs."""


@final
@dataclass(frozen=True)
class Sent:
    """One message of the run, for the audit: who sent what to whom, and how large it was.

    (Of which session it was is only said where several are held side by side.)
    """

    seed: int
    contract: str
    round: int
    sender: str
    receiver: str
    kind: str
    carries: str
    bytes: int
    session: str = ""


@final
@dataclass(frozen=True)
class Question:
    """What firms are asked at once, a request each.

    Args:
        minimum: of usable answers and refusals; None: the run's.
        session: which one asks, where several are held side by side.
    """

    requests: Mapping[str, Request]
    minimum: int | None = None
    session: str = ""


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


class Ask(Protocol):
    """One question a firm, all at once (`Transport.ask`)."""

    def __call__(self, requests: Mapping[str, Request], minimum: int | None = None) -> Answers: ...


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
            f"{answers.first_fault}. {GO_ON}"
        )
    return answers


def check_enrolled(answers: Answers, firms: Sequence[str], limits: Limits) -> None:
    """Raises a TooFewFirmsError where fewer than the minimum of these firms have enrolled."""
    if len(answers.usable) < limits.minimum_firms:
        missing = [name for name in firms if name not in answers.usable]
        raise TooFewFirmsError(
            f"{len(answers.usable)} of {len(firms)} firms enrolled, the run needs "
            f"{limits.minimum_firms}. Missing: {', '.join(missing)}. "
            f"{answers.first_fault}. Start those firms, or lower limits.minimum_firms."
        )


class Seals(Protocol):
    """How models that cross are signed (`simulations.deploy.seals`, in practice)."""

    def put(self, request: Request) -> Request:
        """The request, with every model that it carries signed."""
        ...

    def check(self, request: Request, answer: Answer, name: str) -> None:
        """Raises an UnacceptableError where a firm's model or mask keys are not signed by it."""
        ...


@final
@dataclass(frozen=True)
class Exchange:
    """One message to each of several far firms, and what came back.

    Args:
        firms: that were asked; answered: that replied; questions: in all messages together.
        kinds: of the questions; seconds: from the first message to the last reply.
    """

    firms: int
    answered: int
    questions: int
    kinds: str
    seconds: float


@final
@dataclass(frozen=True)
class Apart:
    """What a deployment adds: firms are on machines of their own, and need not be believed.

    Args:
        study: sha256 of the study, which every firm compares with the one that it agreed to.
        firm_of: the grid -> node id -> the firm whose key that node has.
        seals: how models that cross are signed.
        patience: when a firm is asked again.
        noted: told of every exchange of messages.
    """

    study: str
    firm_of: Callable[[Grid], Mapping[int, str]]
    seals: Seals
    patience: Patience = field(default_factory=Patience)
    noted: Callable[[Exchange], None] = lambda exchange: None


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
        self._declared: dict[int, dict[str, Declaration]] = {}

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
        check_enrolled(answers, self.firms, self._limits)
        return self._enrolled(seed, answers)

    def enrol_all(self, seeds: Sequence[int]) -> dict[int, dict[str, Declaration]]:
        """The same for several seeds: the first finds the firms, the others are one message each.

        Raises:
            TooFewFirmsError: as `enrol`.
        """
        found = {seeds[0]: self.enrol(seeds[0])}
        further = [
            Question(dict.fromkeys(self._nodes, Enrol(seed, self._study))) for seed in seeds[1:]
        ]
        for seed, answers in zip(seeds[1:], self.ask_all(further), strict=True):
            if isinstance(answers, TooFewFirmsError):
                raise answers
            found[seed] = self._enrolled(seed, answers)
        return found

    def _enrolled(self, seed: int, answers: Answers) -> dict[str, Declaration]:
        declared = {n: a for n, a in answers.usable.items() if isinstance(a, Declaration)}
        self._declared[seed] = declared
        return declared

    @property
    def _study(self) -> str:
        return "" if self._apart is None else self._apart.study

    def _enrol_once(self, seed: int, deadline: float) -> Answers:
        nodes = sorted(self._grid.get_node_ids())
        if self._apart is not None and self._nodes:
            # Who is known is waited for, though it may be away right now.
            nodes = sorted({*nodes, *self._nodes.values()})
        keys = {} if self._apart is None else self._apart.firm_of(self._grid)
        # Who is behind a node is not known yet: nodes are numbered until they say their name.
        numbered = {f"{NODE}{place:04}": node for place, node in enumerate(nodes)}
        question = Question(dict.fromkeys(numbered, Enrol(seed, self._study)))
        raw = self._deliver(numbered, [question], deadline)[0]
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
        answers = self.ask_all([Question(requests, minimum)])[0]
        if isinstance(answers, TooFewFirmsError):
            raise answers
        return answers

    def ask_all(self, questions: Sequence[Question]) -> list[Answers | TooFewFirmsError]:
        """Ask several questions at once: one message a firm, whatever their number.

        Returns:
            For each question its answers, or that there are fewer than it needs.
        """
        each = Counter(name for question in questions for name in question.requests)
        # A firm answers one after the other.
        deadline = time.monotonic() + self._limits.wait_s * max(each.values(), default=1)
        told: list[Answers | TooFewFirmsError] = []
        found = self._deliver(self._nodes, questions, deadline) if questions else []
        for question, answers in zip(questions, found, strict=True):
            for name in sorted(set(question.requests) - set(self._nodes)):
                answers.silent[name] = "it never enrolled"
            least = question.minimum
            try:
                told.append(enough(answers, self._limits.minimum_firms if least is None else least))
            except TooFewFirmsError as few:
                told.append(few)
        return told

    def _deliver(
        self, nodes: Mapping[str, int], questions: Sequence[Question], deadline: float
    ) -> list[Answers]:
        asked: dict[str, list[tuple[int, Request]]] = {}
        for place, question in enumerate(questions):
            for name in sorted(question.requests):
                if name in nodes:
                    asked.setdefault(name, []).append((place, question.requests[name]))
        make = dict[str, Callable[[], Message]]()
        # One record a distinct question: engines send a broadcast's arrays once.
        packed: dict[int, Packed] = {}
        facts: dict[int, Facts] = {}
        records: dict[tuple[int, ...], RecordDict] = {}
        for name in sorted(asked):
            requests = [request for _, request in asked[name]]
            for place, request in asked[name]:
                if id(request) not in packed:
                    packed[id(request)] = self._packed(request)
                    facts[id(request)] = Facts.of(packed[id(request)])
                session = questions[place].session
                self._audit(sent(request, facts[id(request)], OPERATOR, name, session))
            key = tuple(map(id, requests))
            if key not in records:
                tagged = [(self._tag(request), packed[id(request)]) for request in requests]
                records[key] = write_records(tagged)
            make[name] = partial(Message, records[key], nodes[name], _verb(requests[0]))
        begun = time.monotonic()
        replies = self._replies(make, {nodes[name]: name for name in make}, deadline)
        if self._apart is not None and make:
            everything = [request for requests in asked.values() for _, request in requests]
            kinds = " ".join(sorted({type(request).__name__ for request in everything}))
            took = time.monotonic() - begun
            self._apart.noted(Exchange(len(make), len(replies), len(everything), kinds, took))
        return self._collect(replies, asked, questions)

    def _replies(
        self, make: Mapping[str, Callable[[], Message]], asked: Mapping[int, str], deadline: float
    ) -> list[tuple[str, Message]]:
        """Firms and what their nodes replied, by name; "" where nobody was asked."""
        if self._apart is not None:
            nodes = {name: node for node, name in asked.items()}
            questions = {name: (nodes[name], question) for name, question in make.items()}
            return sorted(self._apart.patience.replies(self._grid, questions, deadline).items())
        wait = max(deadline - time.monotonic(), 0.1)
        messages = [question() for question in make.values()]
        replies = list(self._grid.send_and_receive(messages, timeout=wait)) if messages else []
        named = [(asked.get(reply.metadata.src_node_id, ""), reply) for reply in replies]
        return sorted(named, key=lambda pair: pair[0])

    def _collect(
        self,
        replies: list[tuple[str, Message]],
        asked: Mapping[str, list[tuple[int, Request]]],
        questions: Sequence[Question],
    ) -> list[Answers]:
        found = [Answers() for _ in questions]
        for name, reply in replies:
            if not name or all(name in found[place].usable for place, _ in asked[name]):
                log.warning("a reply nobody waits for was dropped (%s)", name or "unknown node")
                continue
            if reply.has_error():
                for place, _ in asked[name]:
                    reason = reply.error.reason or f"error {reply.error.code}"
                    found[place].silent[name] = reason
                continue
            try:
                told = _tagged(reply.content, len(asked[name]))
            except (ExchangeError, UnacceptableError) as fault:
                for place, _ in asked[name]:
                    found[place].faulty[name] = str(fault)
                continue
            for (place, request), (tag, packed) in zip(asked[name], told, strict=True):
                session = questions[place].session
                self._note(found[place], name, request, tag, packed, session)
        for question, answers in zip(questions, found, strict=True):
            heard = {*answers.usable, *answers.refused, *answers.faulty, *answers.silent}
            for name in sorted(set(question.requests) & set(asked) - heard):
                answers.silent[name] = f"no answer within {self._limits.wait_s:g} s"
        return found

    def _note(
        self, answers: Answers, name: str, request: Request, tag: str, packed: Packed, session: str
    ) -> None:
        """Put one answer where it belongs."""
        try:
            answer = self._read(tag, packed, request, name, session)
        except (ExchangeError, UnacceptableError) as fault:
            answers.faulty[name] = str(fault)
            return
        if isinstance(answer, Refusal):
            answers.refused[name] = answer.reason
        elif isinstance(answer, Fault):
            answers.silent[name] = f"it failed with {answer.kind} (its own log says why)"
        else:
            answers.usable[name] = answer

    def _read(self, tag: str, packed: Packed, request: Request, name: str, session: str) -> Answer:
        if tag != self._tag(request):
            raise UnacceptableError(f"answers {tag!r}, the open question is {self._tag(request)!r}")
        answer = unpack(packed)
        if not isinstance(answer, Answer):
            raise UnacceptableError(f"sent a request ({packed.kind}) as an answer")
        sender = answer.firm if isinstance(answer, Declaration) else name
        self._audit(sent(request, Facts.of(packed), sender, OPERATOR, session))
        known = name in self.firms  # else a node that has not said its name
        if known and isinstance(answer, Declaration) and answer.firm != name:
            raise UnacceptableError(f"says that it is {answer.firm} now")
        if self._apart is not None:
            self._apart.seals.check(request, answer, name)
        declared = self._declared.get(request.seed, {}).get(name)
        return accept(request, answer, declared, self._limits)

    def _packed(self, request: Request) -> Packed:
        return pack(request if self._apart is None else self._apart.seals.put(request))

    def _tag(self, request: Request) -> str:
        """Names the run and the question, so that another's answer is told from this one's."""
        contract = "" if isinstance(request, Enrol) else request.terms.contract
        turn = getattr(request, "round", 0)
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


def _tagged(content: RecordDict, count: int) -> list[tuple[str, Packed]]:
    """The answers in a reply, as many as there were questions."""
    try:
        told = read_records(content)
    except ExchangeError:
        raise
    except Exception as fault:  # Flower reads arrays with numpy, whose headers may say anything
        raise ExchangeError(f"a reply that cannot be read: {type(fault).__name__}") from fault
    if len(told) != count:
        raise UnacceptableError(f"sent {len(told)} answers to {count} questions")
    return told


def sent(request: Request, facts: Facts, sender: str, receiver: str, session: str = "") -> Sent:
    """One line of the audit: a question, or the answer to it."""
    carries = facts.carries
    if isinstance(request, Query):
        carries = f"{request.part}: {carries}".strip(": ")
    return Sent(
        seed=request.seed,
        contract="" if isinstance(request, Enrol) else request.terms.contract,
        round=getattr(request, "round", 0),
        sender=sender,
        receiver=receiver,
        kind=facts.kind,
        carries=carries,
        bytes=facts.bytes,
        session=session,
    )
