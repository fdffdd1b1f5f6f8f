"""What is still to hold of a study, and where it is filed."""

from __future__ import annotations

import csv
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from typing import IO, Any, final

from parties.exchange import Declaration
from parties.files import write_whole
from server.intake import Limits
from server.outcome import (
    Adoption,
    Case,
    Objection,
    Outcome,
    Progress,
    Scored,
    Spent,
    Step,
)
from server.settling import Settling
from server.transport import Sent
from simulations.results import RunFolder
from simulations.study import Study

log = logging.getLogger("fedpact")

ROUNDS = [f.name for f in dataclasses.fields(Step)]
SPENT = [f.name for f in dataclasses.fields(Spent)]
ADOPTIONS = [f.name for f in dataclasses.fields(Adoption)]
PROBLEMS = [f.name for f in dataclasses.fields(Objection)]
SCORES = [f.name for f in dataclasses.fields(Scored)]
MESSAGES = ["session", *(f.name for f in dataclasses.fields(Sent) if f.name != "session")]


@final
class RunDocket:
    """What is still to hold of a study, and the folder it is filed in (`server.docket.Docket`)."""

    def __init__(self, study: Study, folder: RunFolder) -> None:
        self._study, self._folder = study, folder
        self.firms: tuple[str, ...] = study.names
        self.limits: Limits = study.limits
        self.settling: Settling = study.settling
        cases = list(study.cases())
        self._done = {c.name for c in cases if folder.load(c.name) is not None}
        begun = {c.name: folder.progress(c.name) for c in cases if c.name not in self._done}
        self._begun = {name: found for name, found in begun.items() if found is not None}
        self._session = ""
        self._rounds = self._table("rounds.csv", ROUNDS)
        self._scores = self._table("scores.csv", SCORES)
        self._spent = self._table("seconds.csv", SPENT)
        self._messages = self._table("messages.csv", MESSAGES)
        self._adoptions = self._table("adoptions.csv", ADOPTIONS)
        self._problems = self._table("problems.csv", PROBLEMS)
        self._tables = (
            *(self._rounds, self._scores, self._spent),
            *(self._messages, self._adoptions, self._problems),
        )

    def pending(self) -> Iterator[Case]:
        for case in self._study.cases():
            if case.name not in self._done:
                log.info("seed %d: %s", case.seed, case.contract.name)
                self._session = case.name
                yield case

    def enrolled(self, declared: Mapping[str, Declaration]) -> None:
        self._study.check_declared(declared)

    def audit(self, sent: Sent) -> None:
        # A session may ask under other terms than its own: without a deal, it is no_sharing's.
        row = dataclasses.asdict(sent)
        row["session"] = sent.session or self._session
        _append(self._messages, row, MESSAGES)

    def curve(self, step: Step) -> None:
        _append(self._rounds, dataclasses.asdict(step), ROUNDS)

    def score(self, scored: Scored) -> None:
        row = dataclasses.asdict(scored)
        row["by_class"] = " ".join(f"{right}/{cases}" for cases, right in scored.by_class)
        _append(self._scores, row, SCORES)

    def adopted(self, adoption: Adoption) -> None:
        _append(self._adoptions, dataclasses.asdict(adoption), ADOPTIONS)

    def objected(self, objection: Objection) -> None:
        _append(self._problems, dataclasses.asdict(objection), PROBLEMS)

    def spent(self, spent: Spent) -> None:
        _append(self._spent, dataclasses.asdict(spent), SPENT)

    def keep(self, case: Case, progress: Progress) -> None:
        self._folder.keep(case.name, progress)

    def progress(self, case: Case) -> Progress | None:
        return self._begun.get(case.name)

    def file(self, outcome: Outcome) -> None:
        for name, reason in {**outcome.declined, **outcome.excluded}.items():
            log.warning("seed %d, %s: %s: %s", outcome.seed, outcome.contract, name, reason)
        for table in self._tables:
            table.flush()
        self._folder.file(outcome)

    def close(self) -> None:
        for table in self._tables:
            table.close()

    def _table(self, name: str, columns: list[str]) -> IO[str]:
        """Open a table to append to, without the rows of sessions that will be held again."""
        path = self._folder.path / name
        kept = []
        if path.exists():
            with path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if self._stays(row)]
        header = ",".join(columns) + "\n"
        write_whole(path, header.encode())
        table = path.open("a", newline="", buffering=1)
        for row in kept:
            _append(table, row, columns)
        return table

    def _stays(self, row: Mapping[str, str]) -> bool:
        """Whether what a row tells of will not happen again."""
        name = row.get("session", f"{row['contract']}-seed{row['seed']}")
        begun = self._begun.get(name)
        if name in self._done:
            return True
        # A model is judged after the last round, so that a session begun has not come to it.
        return begun is not None and "round" in row and int(row["round"]) < begun.state.turn


def _append(file: IO[str], row: Mapping[str, Any], columns: list[str]) -> None:
    csv.DictWriter(file, columns, lineterminator="\n").writerow(row)
