"""From filed sessions to the verdict and its tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from parties.exchange import FedpactError
from parties.files import write_whole
from server.estimate import estimate, posterior
from server.game.bargain import Transfer
from server.market import Contest
from server.outcome import Outcome
from server.verdict import BASELINE, ContractVerdict, judge, mean_payoff, method
from simulations.measured import Measured, game_rows, measure
from simulations.privacy import noise_of
from simulations.results import RunFolder
from simulations.study import Study

PAYOFFS = ("seed", "contract", "firm", "clients", "payoff", "predicted", "gain")


def outcomes_of(study: Study, folder: RunFolder) -> tuple[list[Outcome], dict[str, str]]:
    """All sessions of a study and the sha256 of every model.

    Raises:
        FedpactError: a session is not on file.
    """
    outcomes, hashes = [], {}
    for case in study.cases():
        filed = folder.load(case.name)
        if filed is None:
            raise FedpactError(
                f"{folder.path} lacks the session {case.name}. "
                f"Go on with ./run.sh, or in a simulation fedpact resume={folder.path}"
            )
        outcomes.append(filed[0])
        hashes.update(filed[1])
    return outcomes, hashes


def conclude(study: Study, folder: RunFolder) -> dict[str, Any]:
    """Judge all sessions; write payoffs.csv, models/manifest.json and verdict.json.

    Returns:
        The content of verdict.json. It holds nothing of engine, place or time, so equal results
        have equal files.
    """
    outcomes, hashes = outcomes_of(study, folder)
    verdicts = judge(outcomes, study.names, study.confidence)
    _write_payoffs(outcomes, study.names, folder)
    measured = measure(study, outcomes)
    if measured is not None:
        folder.write_json("game.json", game_rows(study, measured))
    posteriors = _posteriors(study, measured)
    terms = {name: c.terms(study.strategy.rounds) for name, c in study.contracts.items()}
    verdict = {
        "study": study.name,
        "firms": list(study.names),
        "seeds": list(study.seeds),
        "unit": study.market.unit,
        "interval": method(len(study.seeds), study.confidence),
        "contracts": {
            name: {
                "firms": {
                    firm: {
                        "payoff": v.payoff,
                        "predicted": v.predicted,
                        "gain": v.gain,
                        "interval": list(v.interval),
                        "decision": v.decision,
                        "needed": v.needed,
                        "clients": v.clients,
                        "reason": v.reason,
                        "adopted": dict(sorted(v.adopted.items())),
                    }
                    for firm, v in contract.firms.items()
                },
                "individually_rational": contract.individually_rational,
                "pareto_optimal": contract.pareto_optimal,
                "irpo": contract.irpo,
                "posterior": posteriors.get(name),
                "transfer": _transfer(study, name, contract),
                **({"price": float(price)} if (price := study.contracts[name].price) else {}),
                **({"privacy": noise} if (noise := noise_of(terms[name])) else {}),
                "declined": dict(sorted(contract.declined.items())),
                "excluded": dict(sorted(contract.excluded.items())),
                "free_riders": list(contract.riders),
                "operator_sees": list(terms[name].operator_sees(study.market.clients, study.tells)),
            }
            for name, contract in verdicts.items()
        },
        "scores": _mean_scores(outcomes),
        "models_sha256": folder.manifest(hashes),
    }
    folder.write_json("verdict.json", verdict)
    return verdict


def _posteriors(study: Study, measured: Measured | None) -> dict[str, dict[str, Any]]:
    """Contract -> what the posterior of the joint table says of it, where clients are contested."""
    if measured is None:
        return {}
    assert isinstance(study.market, Contest)
    tables = posterior(measured.table * measured.clients, np.random.default_rng(0))
    found = estimate(tables, study.contracts, study.play, study.market)
    return {
        name: {
            "clients": measured.clients,
            "individually_rational": e.individually_rational,
            "irpo": e.irpo,
            "signs": dict(zip(study.names, e.signs.tolist(), strict=True)),
            "gains": dict(zip(study.names, e.intervals.tolist(), strict=True)),
        }
        for name, e in found.items()
    }


def _transfer(study: Study, name: str, contract: ContractVerdict) -> dict[str, Any] | None:
    """Side payments a client from the second firm to the first that would content both.

    By the measured mean gains: from minus the first one's gain to the second one's. Gains are after
    the contract's price, so that this is what could be paid besides it.
    """
    if not study.market.contested:
        return None
    first, second = study.names
    gains = [contract.firms[firm].gain for firm in (first, second)]
    if not all(map(math.isfinite, gains)):
        return None
    if study.contracts[name].price:
        # One pays what the other gets: the surplus must not hang on the last bits of a mean.
        gains = [round(gain, 12) for gain in gains]
    payment = Transfer(-Fraction(gains[0]), Fraction(gains[1]))
    nash = payment.nash
    return {
        "payer": second,
        "payee": first,
        "exists": payment.exists,
        "interval": [float(payment.low), float(payment.high)] if payment.exists else None,
        "nash": None if nash is None else float(nash),
    }


def _mean_scores(outcomes: list[Outcome]) -> dict[str, dict[str, float]]:
    """Contract -> score -> mean over the seeds."""
    gathered: dict[str, dict[str, list[float]]] = {}
    for outcome in outcomes:
        for name, value in outcome.scores.items():
            gathered.setdefault(outcome.contract, {}).setdefault(name, []).append(value)
    return {
        contract: {name: float(np.mean(values)) for name, values in sorted(scores.items())}
        for contract, scores in gathered.items()
    }


def _write_payoffs(outcomes: list[Outcome], firms: tuple[str, ...], folder: RunFolder) -> None:
    alone: Mapping[int, Outcome] = {o.seed: o for o in outcomes if o.contract == BASELINE}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(PAYOFFS)
    for outcome in outcomes:
        for firm in firms:
            payoff = mean_payoff([outcome], firm)
            if math.isnan(payoff):
                continue
            told = outcome.summaries.get(firm)
            clients = len(outcome.payoffs[firm]) if told is None else told.cases
            base = mean_payoff([alone[outcome.seed]], firm)
            gain = "" if math.isnan(base) else payoff - base
            predicted = outcome.predicted.get(firm, "")
            table.writerow((outcome.seed, outcome.contract, firm, clients, payoff, predicted, gain))
    write_whole(folder.path / "payoffs.csv", text.getvalue().encode())
