"""The operator's Flower ServerApp: hold every session that is not yet on file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Protocol

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.intake import Limits
from server.outcome import Case, Nature, Outcome, Progress, Record
from server.session import hold_session
from server.transport import Sent, Transport


class Docket(Record, Protocol):
    """What is to be held, and where it is filed (a folder on disk, in practice)."""

    firms: tuple[str, ...]
    limits: Limits
    nature: Nature

    def pending(self) -> Iterator[Case]:
        """Sessions still to hold, in order: seed by seed, contract by contract."""
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


def server_app(docket_of: Callable[[Context], Docket]) -> ServerApp:
    """A ServerApp that holds the sessions of the docket that `docket_of` finds."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        with closing(docket_of(context)) as docket:
            transport = Transport(grid, docket.firms, docket.limits, docket.audit)
            enrolled, declared = None, {}
            for case in docket.pending():
                if case.seed != enrolled:
                    declared = transport.enrol(case.seed)
                    enrolled = case.seed
                case = replace(
                    case,
                    populations={n: d.examples + d.held_out for n, d in declared.items()},
                    riders=tuple(n for n, d in sorted(declared.items()) if not d.contributes),
                )
                begin = docket.progress(case)
                docket.file(hold_session(case, transport.ask, docket.nature, docket, begin))

    return app
