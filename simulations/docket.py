"""What is still to hold of a study, and where it is filed."""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
import time
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import final

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


SHOWN_S = 0.5  # after which a row can be seen in its file


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
        self._messages.append(sent, session=sent.session or self._session)

    def curve(self, step: Step) -> None:
        self._rounds.append(step)

    def score(self, scored: Scored) -> None:
        by_class = " ".join(f"{right}/{cases}" for cases, right in scored.by_class)
        self._scores.append(scored, by_class=by_class)

    def adopted(self, adoption: Adoption) -> None:
        self._adoptions.append(adoption)

    def objected(self, objection: Objection) -> None:
        self._problems.append(objection)

    def spent(self, spent: Spent) -> None:
        self._spent.append(spent)

    def keep(self, case: Case, progress: Progress) -> None:
        self._flush()  # a round that is on file is not held again
        self._folder.keep(case.name, progress)

    def progress(self, case: Case) -> Progress | None:
        return self._begun.get(case.name)

    def file(self, outcome: Outcome) -> None:
        for name, reason in {**outcome.declined, **outcome.excluded}.items():
            log.warning("seed %d, %s: %s: %s", outcome.seed, outcome.contract, name, reason)
        self._flush()
        self._folder.file(outcome)

    def close(self) -> None:
        for table in self._tables:
            table.close()

    def _flush(self) -> None:
        for table in self._tables:
            table.flush()

    def _table(self, name: str, columns: list[str]) -> _Table:
        """Open a table to append to, without the rows of sessions that will be held again."""
        path = self._folder.path / name
        text = path.read_text() if path.exists() else ""
        # What follows the last end of a line was being written when the run was killed.
        whole = text[: text.rfind("\n") + 1]
        kept = [row for row in csv.DictReader(io.StringIO(whole)) if self._stays(row)]
        lines = io.StringIO(newline="")
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row[column] for column in columns] for row in kept)
        write_whole(path, lines.getvalue().encode())
        return _Table(path, columns)

    def _stays(self, row: Mapping[str, str]) -> bool:
        """Whether what a row tells of will not happen again."""
        name = row.get("session", f"{row['contract']}-seed{row['seed']}")
        begun = self._begun.get(name)
        if name in self._done:
            return True
        # A model is judged after the last round, so that a session begun has not come to it.
        return begun is not None and "round" in row and int(row["round"]) < begun.state.turn


@final
class _Table:
    """A CSV file that values of one kind are appended to."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self._places, self._cells = {c: i for i, c in enumerate(columns)}, attrgetter(*columns)
        self._file = path.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._flushed = time.monotonic()

    def append(self, value: object, **instead: str) -> None:
        """Add a row: the value's fields, or what stands in their place."""
        cells = list(self._cells(value))
        for column, cell in instead.items():
            cells[self._places[column]] = cell
        self._writer.writerow(cells)
        if time.monotonic() - self._flushed > SHOWN_S:
            self.flush()

    def flush(self) -> None:
        """Put on file what was added."""
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        self._file.close()
