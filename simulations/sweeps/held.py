"""Hold a sweep's jobs in this process, several by turns, without folders of their own.

The same apps and sessions as in every engine: a job's row is what its study's own run would say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, final

import torch

from parties.batched import fit_together
from parties.datasets.kept import SPLITS
from parties.exchange import Array, Declaration
from parties.firm import Firm
from parties.fitting import Fit, Fitted, fitter
from parties.memory import Memory
from parties.privacy import SECRET
from server.docket import hold_docket
from server.intake import Limits
from server.outcome import Case, Outcome, Progress, Unrecorded
from server.settling import Settling
from server.transport import Sent
from simulations.build import build, sha256
from simulations.engines import in_turn
from simulations.engines.direct import AnswerCache, Direct, Here
from simulations.engines.lockstep import Remembered, all_together, hold_together
from simulations.engines.one_firm import OneFirm
from simulations.study import Study, study_of
from simulations.sweeps.limits import (
    OUT_OF_MEMORY,
    OUT_OF_TIME,
    Clock,
    JobLimits,
    OutOfTimeError,
    memory_limit,
    memory_words,
    over_memory,
)
from simulations.sweeps.rows import failed_row, row_of

ANSWERS = AnswerCache()  # of this process, for all jobs that come to it
FITS = Remembered()
MODELS: dict[tuple[str, int], dict[str, dict[str, Array]]] = {}
MODELS_MB = 256.0
MOST_TURNS = 64  # at a time: each has its data in memory
DATA_MB = 512.0
Fitter = Callable[[Sequence[Fit]], list[Fitted]]


def hold_jobs(texts: Sequence[str], limits: JobLimits) -> list[dict[str, Any]]:
    """The row of each job, in order; a job that fails has a row that says why.

    Args:
        texts: resolved configurations as JSON.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = _held(texts, limits)
        # Several jobs share the memory of a process: who is short of it is held again by itself.
        short = [place for place, row in enumerate(rows) if row["error"] == OUT_OF_MEMORY]
        if len(texts) > 1:
            for place in short:
                rows[place] = _held([texts[place]], limits)[0]
    finally:
        torch.set_num_threads(threads)
        _forget()
    return rows


def _held(texts: Sequence[str], limits: JobLimits) -> list[dict[str, Any]]:
    try:
        return _by_turns(texts, limits)
    except Exception as fault:  # between the jobs' turns: nobody's fault that can be told yet
        if len(texts) > 1:
            return [_held([text], limits)[0] for text in texts]
        return [failed_row(*_told(fault, limits))]


def _by_turns(texts: Sequence[str], limits: JobLimits) -> list[dict[str, Any]]:
    SPLITS.room_mb = max(SPLITS.room_mb, DATA_MB)
    with memory_limit(limits.memory_gb):
        jobs = [_Job(text, limits) for text in texts]
        # By seed, then by job: those who need the same data have their turns at the same time.
        seeds = sorted({seed for job in jobs for seed in job.seeds})
        turns = [partial(job.hold, s) for s in seeds for job in jobs if s in job.seeds]
        size = MOST_TURNS if limits.together else 1
        for some in (turns[low : low + size] for low in range(0, len(turns), size)):
            if limits.together:
                hold_together(some, partial(_within, limits), FITS)
            else:
                some[0]()
        return [job.row() for job in jobs]


@final
class _Job:
    """One study of a chunk. Its seeds are tasks of their own, under one clock."""

    def __init__(self, text: str, limits: JobLimits) -> None:
        self._limits, self._clock = limits, Clock(limits.timeout_s)
        self._outcomes: dict[int, list[Outcome]] = {}
        self._failed: dict[str, Any] | None = None
        self.seeds: tuple[int, ...] = ()
        with self._guarded():
            config = json.loads(text)
            self._study = study_of(config, _part)
            # What batches make differs in the last bits: it is not remembered for those alone.
            how = "together" if limits.together else "alone"
            parties = config["parties"].items()
            self._keys = {name: f"{sha256(_text(part))} {how}" for name, part in parties}
            self.seeds = self._study.seeds

    def row(self) -> dict[str, Any]:
        """Its row, when all of its turns are over."""
        if self._failed is None:
            with self._guarded():
                outcomes = [o for seed in self._study.seeds for o in self._outcomes[seed]]
                return row_of(self._study, outcomes)
        assert self._failed is not None
        return self._failed

    def hold(self, seed: int) -> None:
        """All sessions of one seed."""
        if self._failed is not None:
            return
        with self._guarded():
            study, desk = self._study, Desk(self._study, seed)
            if self._limits.together:
                fitter.set(partial(self._waiting, fitter.get()))
            firms = {name: self._firm(firm, seed) for name, firm in study.firms.items()}
            by_turns = all_together if self._limits.together else in_turn
            hold_docket(desk, Direct(Here(firms, by_turns, ANSWERS), study.limits))
            self._outcomes[seed] = desk.outcomes

    def _waiting(self, batch: Fitter, fits: Sequence[Fit]) -> list[Fitted]:
        """Ask for trainings; until the batch is done, others have their turns."""
        with self._clock.paused():
            return batch(fits)

    def _firm(self, firm: Firm, seed: int) -> OneFirm:
        """A firm with its memory; its own models of a seed outlive the job."""
        key = self._keys[firm.name]
        # A gate keeps a ledger of what it has seen: the firm's answers follow from that too.
        guarded = firm.gate is not None and bool(firm.gate.checks)
        pure = not guarded and firm.secrets != SECRET and firm.tells != "sums"
        return OneFirm(firm.name, firm.answer, Memory(_models(key, seed)), key if pure else "")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """What goes wrong ends this job only."""
        try:
            with self._clock.running():
                yield
        except Exception as fault:
            error, told = _told(fault, self._limits)
            if self._clock.over:
                error, told = OUT_OF_TIME, self._clock.words
            self._failed = failed_row(error, told)


def _within(limits: JobLimits, fits: Sequence[Fit]) -> list[Fitted]:
    """A batch, in the time of one job; whoever is too long for it is found one by one."""
    with Clock(limits.timeout_s).running():
        return fit_together(fits)


def _told(fault: Exception, limits: JobLimits) -> tuple[str, str]:
    """The kind of an error and its message, as a row has them."""
    if isinstance(fault, OutOfTimeError):
        return OUT_OF_TIME, str(fault)
    if over_memory(fault):
        return OUT_OF_MEMORY, memory_words(limits.memory_gb)
    return type(fault).__name__, str(fault)


def _models(key: str, seed: int) -> dict[str, dict[str, Array]]:
    """The models that a firm of this configuration remembers of this seed."""
    MODELS[key, seed] = MODELS.pop((key, seed), {})  # the last one used is the last
    return MODELS[key, seed]


def _forget() -> None:
    """Forget the models that were not used for the longest time, as far as there is no room."""
    left = MODELS_MB * 2**20
    for name in list(reversed(MODELS)):
        left -= sum(a.nbytes for model in MODELS[name].values() for a in model.values())
        if left < 0:
            del MODELS[name]


@final
class Desk(Unrecorded):
    """A docket (`server.app.Docket`) of one seed, in memory: outcomes are all that is kept."""

    def __init__(self, study: Study, seed: int) -> None:
        self._study, self._seed = study, seed
        self.firms: tuple[str, ...] = study.names
        self.limits: Limits = study.limits
        self.settling: Settling = study.settling
        self.outcomes: list[Outcome] = []

    def pending(self) -> Iterator[Case]:
        for case in self._study.cases():
            if case.seed == self._seed:
                yield replace(case, scored=False)

    def enrolled(self, declared: Mapping[str, Declaration]) -> None:
        self._study.check_declared(declared)

    def audit(self, sent: Sent) -> None:
        return

    def progress(self, case: Case) -> Progress | None:
        return None

    def file(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def close(self) -> None:
        return


def _part(config: Mapping[str, Any]) -> Any:
    """A part of a study, built once for all studies that have it."""
    return _built(_text(config))


@lru_cache(maxsize=4096)
def _built(text: str) -> Any:
    return build(json.loads(text))


def _text(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True)
