"""sweep=optuna: the terms under which firms gain most together, and every one of them signs.

Optuna's database is the record of the search: a trial is a point, and is told once its study's row
is there. What is asked for next follows from the trials before it, so that a search that was killed
asks for the same points as one that was not.
"""

from __future__ import annotations

import importlib.util
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from parties.exchange import FedpactError
from simulations.mistakes import did_you_mean
from simulations.sweeps import Design, Held, Point, Row
from simulations.sweeps.axes import Axis, check_whole

if TYPE_CHECKING:
    import optuna

FILE, NAME = "optuna.db", "sweep"
SHORTFALLS, SEARCH = "shortfalls", "search"
LEAST = 1e-12  # what a firm that declines lacks: its gain of no deal is zero


@final
@dataclass(frozen=True)
class Optuna(Design):
    """A search for the largest joint surplus that every firm signs for.

    Tree-structured Parzen estimators with constraints: a firm's is that the low end of its gain's
    interval is not below zero. Studies that failed are told as failed.

    Args:
        trials: studies in all; a point may come up again, and is then held once.
        parallel: trials asked for at a time, without knowing of each other's outcome: as many
            workers can be busy.
        seed: of the search.
        contract: whose surplus; null: in each study the best one, as `offer_of` says.

    References:
        Watanabe and Hutter 2023, arXiv 2211.14411 (constraints).
    """

    trials: int = 100
    parallel: int = 8
    seed: int = 0
    contract: str | None = None
    _open: list[_Search] = field(default_factory=list, init=False, repr=False, compare=False)

    def check(self) -> None:
        for name, least in (("trials", 1), ("parallel", 1), ("seed", 0)):
            check_whole(name, getattr(self, name), least)
        if self.contract is not None and not isinstance(self.contract, str):
            raise FedpactError(
                f"sweep.contract is {self.contract!r}; legal is the name of a contract, or null "
                "for each study's best."
            )
        if not self.axes:
            raise FedpactError(
                "sweep=optuna has no axes to search. Name some: fedpact sweep=optuna "
                "'sweep.axes={market.gamma:{low:0.1,high:0.9}}', or use sweep=loan_terms."
            )
        if importlib.util.find_spec("optuna") is None:
            raise FedpactError(
                "sweep=optuna needs the package optuna, which is not installed. Install fedpact "
                'with its extra "optuna", or use sweep=sobol.'
            )

    @property
    def words(self) -> str:
        return (
            f"{self.trials} trials of Optuna, {self.parallel} at a time, seed {self.seed}, for the "
            f"largest surplus of {self.contract or 'any contract'} that every firm signs"
        )

    def most(self) -> int:
        return self.trials

    def first(self) -> Point:
        return {axis.key: axis.at(0.5) for axis in self.parsed}

    def open(self, folder: Path) -> None:
        search = {
            "axes": [axis.told() for axis in self.parsed],
            "seed": self.seed,
            "parallel": self.parallel,
            "contract": self.contract,
        }
        with _on_file(folder / FILE):
            self._open[:] = [_Search(folder / FILE, self.parsed, self.seed, search)]

    def ask(self, held: Sequence[Held]) -> Sequence[Point]:
        (search,) = self._open
        offers = [self._offer(one.row) for one in held]
        with _on_file(search.path):
            search.tell(offers)
            count = max(search.count, len(held) + 1)
            whole = -(-count // self.parallel) * self.parallel  # what is asked for together
            search.grow(min(whole, self.trials))
        return search.points[len(held) : self.trials]

    def extra(self, held: Sequence[Held]) -> Mapping[str, Any]:
        """The best feasible point (optimum): its values, contract, surplus, the firms' lows, and
        its job; None if there is none. How many trials there were; the same in words."""
        trials = self._open[0].count if self._open else len(held)
        found = [(n, one.point, self._offer(one.row)) for n, one in enumerate(held)]
        legal = [(n, p, offer) for n, p, offer in found if offer is not None and offer.signed]
        if not legal:
            told = (
                f"in none of {len(held)} studies every firm surely signs {self.contract or 'one'}"
            )
            return {"optimum": None, "trials": trials, "told": told}
        job, point, best = max(legal, key=lambda one: (one[2].surplus, -one[0]))
        terms = ", ".join(f"{key}={_short(value)}" for key, value in point.items())
        optimum = {
            "values": dict(point),
            "contract": best.contract,
            "surplus": best.surplus,
            "lows": dict(best.lows),
            "job": job,
        }
        told = (
            f"optimum {best.surplus:+.4f} under {best.contract} at {terms} (job {job}), the best "
            f"of {len(legal)} that every firm signs: the best of many is flattered, look at it "
            "again under other seeds"
        )
        if best.surplus <= 0:
            told = (
                f"nothing that every firm signs has a larger joint surplus than no_sharing, in "
                f"{len(held)} studies"
            )
        return {"optimum": optimum, "trials": trials, "told": told}

    def _offer(self, row: Row) -> Offer | None:
        """What a study offers.

        Raises:
            FedpactError: it does not hold the contract that is asked for.
        """
        names = _contracts(row)
        varied = any(axis.key == "study.contracts" for axis in self.parsed)
        if row["status"] == "ok" and self.contract and self.contract not in names and not varied:
            raise FedpactError(
                f"sweep.contract is {self.contract!r}, which these studies do not hold. "
                f"{did_you_mean(self.contract, names)}"
            )
        return offer_of(row, self.contract)


@final
@dataclass(frozen=True)
class Offer:
    """One contract in one study.

    Args:
        lows: firm -> low end of its gain's interval.
        shortfalls: a firm each, what it lacks to sign; not above zero where it signs.
    """

    contract: str
    surplus: float
    lows: Mapping[str, float]
    shortfalls: tuple[float, ...]

    @property
    def signed(self) -> bool:
        return all(lacks <= 0 for lacks in self.shortfalls)


def offer_of(row: Row, contract: str | None) -> Offer | None:
    """What a study offers under a contract; None where it failed or could not be measured.

    Without a contract it is the one with the largest surplus that every firm signs; where there is
    none, the one that is nearest to that (the firms lack least, summed).
    """
    if row["status"] != "ok":
        return None
    every = [_offer(row, name) for name in _contracts(row) if contract in (None, name)]
    offers = [offer for offer in every if offer is not None]
    if not offers:
        return None
    return max(offers, key=lambda o: (o.signed, o.surplus if o.signed else -_lacking(o)))


def _offer(row: Row, contract: str) -> Offer | None:
    ends = f"{contract}.", ".decision"
    names = [key for key in row if key.startswith(ends[0]) and key.endswith(ends[1])]
    firms = [key.removeprefix(ends[0]).removesuffix(ends[1]) for key in names]
    lows = {firm: row[f"{contract}.{firm}.low"] for firm in firms}
    surplus = row[f"{contract}.surplus"]
    if surplus is None or None in lows.values():
        return None
    signs = [row[name] == "signs" for name in names]
    lacks = [-low if s else max(-low, LEAST) for low, s in zip(lows.values(), signs, strict=True)]
    return Offer(contract, surplus, lows, tuple(lacks))


def _lacking(offer: Offer) -> float:
    return math.fsum(max(lacks, 0.0) for lacks in offer.shortfalls)


def _contracts(row: Row) -> list[str]:
    return [key.removesuffix(".signed") for key in row if key.endswith(".signed")]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


@final
class _Search:
    """The trials in Optuna's database, in their order.

    Raises:
        FedpactError: the file holds another search.
    """

    def __init__(
        self, path: Path, axes: Sequence[Axis], seed: int, search: Mapping[str, Any]
    ) -> None:
        import optuna
        from sqlalchemy import URL, NullPool

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.path, self._axes, self._seed = path, axes, seed
        self._spread = {axis.key: _distribution(axis) for axis in axes}
        url = URL.create("sqlite", database=str(path)).render_as_string()
        # No pool: each connection is closed after use, and a killed search leaves nothing open.
        self._storage = optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": NullPool})
        self._study = optuna.create_study(
            storage=self._storage,
            sampler=_sampler(seed),
            study_name=NAME,
            direction="maximize",
            load_if_exists=True,
        )
        known = self._study.user_attrs.get(SEARCH)
        if known is None:
            self._study.set_user_attr(SEARCH, dict(search))
        elif known != json.loads(json.dumps(search)):
            raise FedpactError(
                f"{path} holds a search with other axes, seed, parallel or contract; it goes on "
                "only as it was begun. Choose another folder with run_dir=..."
            )
        self._trials = self._study.get_trials()

    @property
    def count(self) -> int:
        return len(self._trials)

    @property
    def points(self) -> list[Point]:
        return [
            {axis.key: _value(axis, t.params[axis.key]) for axis in self._axes}
            for t in self._trials
        ]

    def tell(self, offers: Sequence[Offer | None]) -> None:
        """What came of the first trials; those that were told before are left as they are.

        Raises:
            FedpactError: one was told something else before.
        """
        from optuna.trial import TrialState

        study, new = self._storage.get_study_id_from_name(NAME), False
        for trial, offer in zip(self._trials, offers, strict=False):
            if not trial.state.is_finished():
                new = True
                if offer is None:
                    self._study.tell(trial.number, state=TrialState.FAIL)
                    continue
                # Before it is finished: then a killed search cannot lose it.
                key = self._storage.get_trial_id_from_study_id_trial_number(study, trial.number)
                self._storage.set_trial_user_attr(key, SHORTFALLS, offer.shortfalls)
                self._study.tell(trial.number, offer.surplus)
            elif trial.state == TrialState.COMPLETE and offer and trial.value != offer.surplus:
                raise FedpactError(
                    f"{self.path} holds a search over other studies: trial {trial.number} came to "
                    f"{trial.value}, and its study's surplus is {offer.surplus}. Choose another "
                    "folder with run_dir=..."
                )
        if new:
            self._trials = self._study.get_trials()

    def grow(self, count: int) -> None:
        """Ask Optuna for trials until there are so many; those that are not told yet count as bad,
        so that others are tried beside them.

        Each is drawn in memory and stored whole, with a sampler of its own: whenever the search is
        killed, the next trial is the same.
        """
        import optuna
        from optuna.trial import TrialState

        if self.count >= count:
            return
        draft = optuna.create_study(direction="maximize", sampler=_sampler(self._seed))
        for trial in self._trials:
            draft.add_trial(self._begun(trial.params, trial.user_attrs))
            if trial.state == TrialState.COMPLETE:
                draft.tell(trial.number, trial.value)
            elif trial.state == TrialState.FAIL:
                draft.tell(trial.number, state=TrialState.FAIL)
        for number in range(self.count, count):
            seed = np.random.default_rng([self._seed, number]).integers(1 << 32)
            draft.sampler = _sampler(int(seed))
            self._study.add_trial(self._begun(draft.ask(self._spread).params, {}))
        self._trials = self._study.get_trials()

    def _begun(self, params: dict[str, Any], facts: dict[str, Any]) -> optuna.trial.FrozenTrial:
        """A trial that is not told yet."""
        from optuna.trial import TrialState, create_trial

        return create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=self._spread,
            user_attrs=facts,
        )


@contextmanager
def _on_file(path: Path) -> Iterator[None]:
    """Tell a person of a database that cannot be read or written."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as fault:
        why = " ".join(str(fault.__cause__ or fault).split())[:200]
        raise FedpactError(
            f"{path} cannot be used ({why}). It is Optuna's database of the search. Make room, or "
            "choose another folder with run_dir=..., then run the same command again."
        ) from fault


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna 4: constraints are new; Optuna 5: they are old
        return optuna.samplers.TPESampler(
            seed=seed,
            multivariate=True,
            constant_liar=True,
            constraints_func=lambda trial: trial.user_attrs[SHORTFALLS],
        )


def _distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    from optuna import distributions

    if axis.values:  # as text: the database takes no lists
        return distributions.CategoricalDistribution(tuple(map(json.dumps, axis.values)))
    if axis.integer:
        return distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


def _value(axis: Axis, given: Any) -> Any:
    """The value that a trial's parameter stands for."""
    if not axis.values:
        return given
    return axis.values[[json.dumps(value) for value in axis.values].index(given)]
