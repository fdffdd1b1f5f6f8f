"""What is to be held, and the operator's way through it, session by session."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

from parties.exchange import Declaration, Request
from server.abreast import hold_abreast
from server.intake import Limits
from server.outcome import Case, Outcome, Progress, Record
from server.session import hold_session
from server.settling import Settling
from server.transport import Answers, Ask, Sent, Transport


class Docket(Record, Protocol):
    """What is to be held, and where it is filed (a folder on disk, in practice)."""

    firms: tuple[str, ...]
    limits: Limits
    settling: Settling

    def pending(self) -> Iterator[Case]:
        """Sessions still to hold, in order: seed by seed, contract by contract."""
        ...

    def enrolled(self, declared: Mapping[str, Declaration]) -> None:
        """Check what the firms declare for a seed; raises a FedpactError where it does not fit."""
        ...

    def audit(self, sent: Sent) -> None:
        """Note one message."""
        ...

    def progress(self, case: Case) -> Progress | None:
        """What an interrupted session had come to, if it is on file."""
        ...

    def file(self, outcome: Outcome) -> None:
        """File one finished session, whole or not at all."""
        ...

    def close(self) -> None:
        """Close what is open, after the last session or a fault."""
        ...


class Operator(Protocol):
    """A way to the firms (`Transport`, in practice)."""

    def enrol(self, seed: int) -> Mapping[str, Declaration]: ...

    def ask(self, requests: Mapping[str, Request], minimum: int | None = None) -> Answers: ...


def hold_docket(docket: Docket, operator: Operator) -> None:
    """Hold every session that is not yet on file."""
    enrolled, declared = None, dict[str, Declaration]()
    for case in docket.pending():
        if case.seed != enrolled:
            declared = dict(operator.enrol(case.seed))
            docket.enrolled(declared)
            enrolled = case.seed
        _hold(case, declared, docket, operator.ask)


def hold_docket_abreast(docket: Docket, operator: Transport) -> None:
    """The same for firms that are far away: many sessions side by side, a message a firm and step.

    Every session comes to the same as by itself.
    """
    cases = list(docket.pending())
    for begin in range(0, len(cases), docket.limits.abreast):
        group = cases[begin : begin + docket.limits.abreast]
        declared = operator.enrol_all(list(dict.fromkeys(case.seed for case in group)))
        for told in declared.values():
            docket.enrolled(told)
        sessions = {case.name: partial(_hold, case, declared[case.seed], docket) for case in group}
        hold_abreast(sessions, operator.ask_all)


def _hold(case: Case, declared: Mapping[str, Declaration], docket: Docket, ask: Ask) -> None:
    """Hold one session, and file it."""
    case = replace(
        case,
        populations={n: d.examples + d.held_out for n, d in declared.items()},
        riders=tuple(n for n, d in sorted(declared.items()) if not d.contributes),
    )
    docket.file(hold_session(case, ask, docket.settling, docket, docket.progress(case)))
