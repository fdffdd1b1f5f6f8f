"""The desk: it checks a question, answers it once, and writes down what came and what left."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import final

from parties.answering import Answering
from parties.desk.agreement import Agreement
from parties.desk.audit import NOTED, RECEIVED, REFUSED, SENT, Audit, Entry
from parties.desk.kept import Kept
from parties.desk.policy import Policy
from parties.exchange import (
    Answer,
    Deal,
    Declaration,
    Enrol,
    ExchangeError,
    Fault,
    Keys,
    Offer,
    Refusal,
    Request,
    Unmask,
    pack,
    unpack,
)
from parties.exchange.frames import read_frame, write_frame
from parties.files import digest
from parties.memory import Memory
from parties.seals import OPERATOR

log = logging.getLogger("fedpact.desk")

MOST_SEEDS = 64  # of which models are kept: many are held side by side


@final
@dataclass(frozen=True)
class _Question:
    """A question, and what the log says of it."""

    request: Request
    tag: str
    sha256: str

    @property
    def once(self) -> str:
        """Where the same question counts as one that was answered: in whatever run, so that one
        that is held again trains nothing anew; but masks are drawn, and runs enrol, each time."""
        masks = isinstance(self.request, Keys | Deal | Unmask) or (
            isinstance(self.request, Offer) and self.request.masking is not None
        )
        return self.tag if masks or isinstance(self.request, Enrol) else ""

    @property
    def run(self) -> str:
        """The run that asks: a tag begins with it."""
        return self.tag.partition("/")[0]

    def entry(self, direction: str, kind: str, size: int, sha256: str, note: str = "") -> Entry:
        """A line on this question, or on a frame that answers it."""
        return Entry(
            direction,
            OPERATOR,
            kind,
            size,
            sha256,
            contract="" if isinstance(self.request, Enrol) else self.request.terms.contract,
            round=getattr(self.request, "round", 0),
            seed=self.request.seed,
            tag=self.tag,
            note=note,
        )


@final
class Desk:
    """A firm's desk.

    Args:
        name: the firm's.
        firm: who answers what the desk lets through.
        agreed: what may be asked at all.
        policy: what the firm refuses all the same.
        audit: its log; nothing leaves that could not be written there before.
        memory: what it keeps on disk.
    """

    def __init__(
        self,
        name: str,
        firm: Answering,
        agreed: Agreement,
        policy: Policy,
        audit: Audit,
        memory: Kept,
    ) -> None:
        self.name = name
        self._firm, self._agreed, self._policy = firm, agreed, policy
        self._audit, self._memory = audit, memory
        self._turn = threading.Lock()

    def answer(self, request: Request, tag: str = "") -> Answer:
        """Answer a question of the operator, refuse it, or say that the firm failed."""
        answer = unpack(read_frame(self.reply(write_frame(pack(request)), tag)))
        assert isinstance(answer, Answer)
        return answer

    def reply(self, frame: bytes | bytearray, tag: str) -> bytes:
        """The same with frames: one question at a time, whoever asks.

        Raises:
            FedpactError: the audit log or the memory cannot be written; then nothing may leave.
        """
        with self._turn:
            try:
                request = unpack(read_frame(frame))
                if not isinstance(request, Request):
                    raise ExchangeError(f"a {type(request).__name__} is an answer, no question.")
            except ExchangeError as fault:
                return self._refuse_unreadable(frame, tag, str(fault))
            question = _Question(request, tag, digest(frame))
            kind = type(request).__name__
            self._audit.append(question.entry(RECEIVED, kind, len(frame), question.sha256))
            return self._reply(question)

    def note(self, text: str) -> None:
        """Write something down that is no message."""
        self._audit.append(Entry(NOTED, note=text))

    @property
    def busy(self) -> bool:
        """Whether it is answering."""
        return self._turn.locked()

    def close(self) -> None:
        """Answer nothing more, and let go of the audit log."""
        self._audit.close()

    def _reply(self, question: _Question) -> bytes:
        objection = self._objection(question)
        answer, frame = self._refusal(objection) if objection else self._answered(question)
        kept_in = self._policy.objection_to(answer, len(frame))
        if kept_in and not isinstance(answer, Refusal | Fault):
            answer, frame = self._refusal(kept_in)
        refused = isinstance(answer, Refusal)
        note = answer.reason if isinstance(answer, Refusal) else ""
        direction, kind = REFUSED if refused else SENT, type(answer).__name__
        self._audit.append(question.entry(direction, kind, len(frame), digest(frame), note))
        return frame

    def _objection(self, question: _Question) -> str:
        """Why the desk will not let a question through to the firm, or ""."""
        known = isinstance(question.request, Enrol) or question.run in self._memory.runs
        if not known:
            return "this run has not enrolled"
        return self._agreed.objection(question.request) or self._policy.objection(question.request)

    def _answered(self, question: _Question) -> tuple[Answer, bytes]:
        """What the firm says, or has said when this was asked before."""
        frame = self._memory.found(question.once, question.sha256)
        if frame is not None:
            said = unpack(read_frame(frame))
            assert isinstance(said, Answer)
            return said, frame
        # The firm writes on a copy: notes of a question count only once it is answered.
        notes = dict(self._memory.notes)
        try:
            memory = Memory(self._memory.models, notes, MOST_SEEDS)
            answer = self._firm.answer(question.request, memory)
            frame = write_frame(pack(answer))
        except Exception as fault:
            # The text may quote private data: it goes to the firm's own log, not to the operator.
            log.exception("%s could not answer a %s", self.name, type(question.request).__name__)
            failed = Fault(type(fault).__name__)
            return failed, write_frame(pack(failed))
        run = question.run if isinstance(answer, Declaration) else None
        # What a refusal came of may be mended (a key that was not pinned), so it is found anew when
        # asked again. One that protects comes of the notes, and these stay.
        again = b"" if isinstance(answer, Refusal) else frame
        self._memory.keep(question.once, question.sha256, again, notes, run)
        return answer, frame

    def _refusal(self, reason: str) -> tuple[Refusal, bytes]:
        refusal = Refusal(f"{self.name}: {reason}")
        return refusal, write_frame(pack(refusal))

    def _refuse_unreadable(self, frame: bytes | bytearray, tag: str, problem: str) -> bytes:
        came = Entry(RECEIVED, OPERATOR, "unreadable", len(frame), digest(frame), tag=tag)
        self._audit.append(came)
        left = write_frame(pack(Fault("ExchangeError")))
        self._audit.append(
            Entry(REFUSED, OPERATOR, "Fault", len(left), digest(left), tag=tag, note=problem)
        )
        return left
