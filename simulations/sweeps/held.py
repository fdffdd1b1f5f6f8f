"""Hold a sweep's jobs in this process, several by turns, without folders of their own.

The same apps and sessions as in every engine: a job's row is what its study's own run would say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, final

import torch

from parties.exchange import Answer, Array, Request
from parties.firm import Firm, Memory
from server.docket import hold_docket
from server.intake import Limits
from server.outcome import Case, Nature, Outcome, Progress, Unrecorded
from server.transport import Sent
from simulations.build import build, sha256
from simulations.engines.direct import AnswerCache, Direct, OneFirm
from simulations.study import Study, study_of
from simulations.sweeps.limits import (
    Clock,
    JobLimits,
    StoppedError,
    memory_fault,
    memory_limit,
    over_memory,
)
from simulations.sweeps.rows import failed_row, row_of

ANSWERS = AnswerCache()  # of this process, for all jobs that come to it


def hold_jobs(texts: Sequence[str], limits: JobLimits) -> list[dict[str, Any]]:
    """The row of each job, in order; a job that fails has a row that says why.

    Args:
        texts: resolved configurations as JSON.
    """
    torch.set_num_threads(1)
    with memory_limit(limits.memory_gb):
        return [_hold(text, limits) for text in texts]


def _hold(text: str, limits: JobLimits) -> dict[str, Any]:
    clock = Clock(limits.timeout_s)
    try:
        with clock.running():
            config = json.loads(text)
            study = study_of(config, _part)
            keys = {name: sha256(_text(part)) for name, part in config["parties"].items()}
            outcomes = [o for s in study.seeds for o in _hold_seed(study, keys, s, limits)]
            return row_of(study, outcomes)
    except StoppedError as fault:
        return failed_row(fault.error, str(fault))
    except Exception as fault:
        if over_memory(fault):
            stopped = memory_fault(limits.memory_gb)
            return failed_row(stopped.error, str(stopped))
        return failed_row(type(fault).__name__, str(fault))


def _hold_seed(
    study: Study, keys: Mapping[str, str], seed: int, limits: JobLimits
) -> list[Outcome]:
    """All sessions of one seed.

    Args:
        keys: firm -> a hash of its configuration.
    """
    desk = Desk(study, seed)
    firms = {name: _told(firm, keys[name], seed, limits) for name, firm in study.firms.items()}
    hold_docket(desk, Direct(firms, study.limits, ANSWERS))
    return desk.outcomes


def _told(firm: Firm, key: str, seed: int, limits: JobLimits) -> OneFirm:
    """A firm with its memory; its own models of a seed outlive the job."""

    def answer(request: Request, memory: Memory) -> Answer:
        try:
            return firm.answer(request, memory)
        except (MemoryError, RuntimeError) as fault:
            if over_memory(fault):
                raise memory_fault(limits.memory_gb) from fault
            raise

    # A gate keeps a ledger of what it has seen: its firm's answers follow from their order too.
    guarded = firm.gate is not None and bool(firm.gate.checks)
    return OneFirm(answer, Memory(_models(key, seed)), "" if guarded else key)


@lru_cache(maxsize=1024)
def _models(key: str, seed: int) -> dict[str, dict[str, Array]]:
    """The models that a firm of this configuration remembers of this seed."""
    return {}


@final
class Desk(Unrecorded):
    """A docket (`server.app.Docket`) of one seed, in memory: outcomes are all that is kept."""

    def __init__(self, study: Study, seed: int) -> None:
        self._study, self._seed = study, seed
        self.firms: tuple[str, ...] = study.names
        self.limits: Limits = study.limits
        self.nature: Nature = study.nature
        self.outcomes: list[Outcome] = []

    def pending(self) -> Iterator[Case]:
        for case in self._study.cases():
            if case.seed == self._seed:
                yield replace(case, scored=False)

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
