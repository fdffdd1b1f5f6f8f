"""What is still to hold of a study, and where it is filed."""

from __future__ import annotations

import csv
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from typing import IO, Any, final

from server.intake import Limits
from server.outcome import Case, Nature, Outcome, Step
from server.transport import Sent
from simulations.results import RunFolder, write_whole
from simulations.study import Study

log = logging.getLogger("fedpact")

ROUNDS = [f.name for f in dataclasses.fields(Step)]
MESSAGES = ["session", *(f.name for f in dataclasses.fields(Sent))]


@final
class RunDocket:
    """What is still to hold of a study, and the folder it is filed in (`server.app.Docket`)."""

    def __init__(self, study: Study, folder: RunFolder) -> None:
        self._study, self._folder = study, folder
        self.firms: tuple[str, ...] = study.names
        self.limits: Limits = study.limits
        self.nature: Nature = study.nature
        self._done = {c.name for c in study.cases() if folder.load(c.name) is not None}
        self._session = ""
        self._rounds = self._table("rounds.csv", ROUNDS)
        self._messages = self._table("messages.csv", MESSAGES)

    def pending(self) -> Iterator[Case]:
        for case in self._study.cases():
            if case.name not in self._done:
                log.info("seed %d: %s", case.seed, case.contract.name)
                self._session = case.name
                yield case

    def audit(self, sent: Sent) -> None:
        # A session may ask under other terms than its own: without a deal, it is no_sharing's.
        row = {"session": self._session, **dataclasses.asdict(sent)}
        _append(self._messages, row, MESSAGES)

    def curve(self, step: Step) -> None:
        _append(self._rounds, dataclasses.asdict(step), ROUNDS)

    def file(self, outcome: Outcome) -> None:
        for name, reason in {**outcome.declined, **outcome.excluded}.items():
            log.warning("seed %d, %s: %s: %s", outcome.seed, outcome.contract, name, reason)
        self._rounds.flush()
        self._messages.flush()
        self._folder.file(outcome)

    def close(self) -> None:
        self._rounds.close()
        self._messages.close()

    def _table(self, name: str, columns: list[str]) -> IO[str]:
        """Open a table to append to, without the rows of sessions that will be held again."""
        path = self._folder.path / name
        kept = []
        if path.exists():
            with path.open(newline="") as file:
                kept = [
                    row
                    for row in csv.DictReader(file)
                    if row.get("session", f"{row['contract']}-seed{row['seed']}") in self._done
                ]
        header = ",".join(columns) + "\n"
        write_whole(path, header.encode())
        table = path.open("a", newline="", buffering=1)
        for row in kept:
            _append(table, row, columns)
        return table


def _append(file: IO[str], row: Mapping[str, Any], columns: list[str]) -> None:
    csv.DictWriter(file, columns, lineterminator="\n").writerow(row)
