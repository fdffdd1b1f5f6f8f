"""The story of one market under one contract, under one seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from parties.exchange import (
    Actions,
    Array,
    DecisionRule,
    FedpactError,
    Measure,
    Play,
    Predictions,
    Query,
    ReuseReport,
    Scores,
    Terms,
    Weights,
)
from server.contracts.no_sharing import NoSharing
from server.game.solve import payoffs
from server.game.table import joint_table
from server.market import Contest, OwnCases, after_price
from server.outcome import (
    Adoption,
    Case,
    Nature,
    Objection,
    Outcome,
    Progress,
    Record,
    Summary,
    Unrecorded,
)
from server.rounds import Ask, barred, hold_rounds, no_deal
from server.scores import auc, stacked
from server.serving import same_clients, serve
from server.transport import Answers

Kind = TypeVar("Kind")


def hold_session(
    case: Case,
    ask: Ask,
    nature: Nature,
    record: Record | None = None,
    begin: Progress | None = None,
) -> Outcome:
    """Hold one market under one contract: offer, exchange for some rounds, then play or measure.

    Args:
        case: what is held.
        ask: puts questions to the firms.
        nature: reveals true classes to the market.
        record: told of what happens as it happens.
        begin: what an interrupted session had come to.
    """
    terms = case.contract.terms(case.strategy.rounds)
    notes = record or Unrecorded()
    progress, updates = hold_rounds(case, terms, ask, notes, begin or Progress())
    fates: dict[str, Any] = {
        "declined": progress.declined,
        "excluded": progress.excluded,
        "riders": progress.riders,
    }
    if no_deal(case, barred(case, progress)):
        # Too few are left to share with: all go on as if nothing had been offered.
        alone = hold_session(replace(case, contract=NoSharing()), ask, nature)
        return replace(alone, contract=case.contract.name, **fates)
    match case.market.clients:
        case "contested":
            outcome = _contest(case, terms, ask, nature, updates)
        case "common":
            outcome = serve(case, terms, ask, nature, progress)
        case _:
            outcome = _own_cases(case, terms, ask, notes, progress)
    published = progress.state.published
    if terms.models and case.strategy.combines and published is None:
        reason = "every round was void: there is no common model"
        fates["excluded"] = {**dict.fromkeys(case.firms, reason), **progress.excluded}
    models = {"published": published} if published is not None else dict(updates)
    return replace(outcome, models=models, **fates)


# ------------------------------------------------------------------- firms contest clients


def _contest(
    case: Case, terms: Terms, ask: Ask, nature: Nature, updates: Mapping[str, Weights]
) -> Outcome:
    """Measure the joint table, solve the game on what the firms may know, act, settle."""
    market = case.market
    assert isinstance(market, Contest)
    first, second = case.firms
    validation = _predictions(case, terms, ask, "validation", nature)
    labels = nature(case.seed, "validation")[1]
    edges = [case.play.edges(p.probs[:, 1], market) for p in validation]
    signals = [np.digitize(p.probs[:, 1], e) for p, e in zip(validation, edges, strict=True)]
    table = joint_table(labels, signals[0], signals[1], len(edges[0]) + 1, len(edges[1]) + 1)
    belief = table if terms.models else case.play.prior.mean(table)
    maps = case.play.maps(belief, market, shared=terms.predictions)

    shown: tuple[Predictions | None, Predictions | None] = (None, None)
    if terms.predictions:
        shown = _predictions(case, terms, ask, "contested", nature)
    requests = {
        first: Play(
            terms,
            case.seed,
            _rule(edges[0], edges[1], maps[0], terms.predictions),
            belief,
            rival=shown[1],
            rival_model=updates.get(second),
        ),
        second: Play(
            terms,
            case.seed,
            _rule(edges[1], edges[0], maps[1].T, terms.predictions),
            belief.transpose(0, 2, 1),
            rival=shown[0],
            rival_model=updates.get(first),
        ),
    }
    ids, truth = nature(case.seed, "contested")
    answers = ask(requests, len(case.firms))
    actions = (_of(answers, first, Actions), _of(answers, second, Actions))
    for name, acted in zip(case.firms, actions, strict=True):
        same_clients(acted.ids, ids, name)
    earned = np.stack(market.settle((actions[0].actions, actions[1].actions), truth))
    exact = payoffs(table, maps, market.payoff, market.gamma)
    earned, exact = (after_price(paid, terms.price) for paid in (earned, exact))
    return Outcome(
        seed=case.seed,
        contract=terms.contract,
        ids=dict.fromkeys(case.firms, ids),
        payoffs=dict(zip(case.firms, earned, strict=True)),
        predicted={name: float(exact[i]) for i, name in enumerate(case.firms)},
        table=table,
        belief=belief,
        maps=maps,
        scores=_auc_scores(case.firms, validation, labels, shown, truth) if case.scored else {},
    )


def _predictions(
    case: Case, terms: Terms, ask: Ask, part: str, nature: Nature
) -> tuple[Predictions, Predictions]:
    query = Query(terms, case.seed, part)
    answers = ask(dict.fromkeys(case.firms, query), len(case.firms))
    pair = tuple(_of(answers, name, Predictions) for name in case.firms)
    for name, predictions in zip(case.firms, pair, strict=True):
        same_clients(predictions.ids, nature(case.seed, part)[0], name)
    return pair[0], pair[1]


def _rule(edges: Array, rival_edges: Array, actions: Array, shared: bool) -> DecisionRule:
    """A firm's part of the play: own signals along axis 0; the rival's only where it is seen."""
    if shared:
        return DecisionRule(edges, rival_edges, actions)
    return DecisionRule(edges, np.empty(0), actions[:, 0])


def _auc_scores(
    firms: tuple[str, ...],
    validation: tuple[Predictions, Predictions],
    labels: Array,
    contested: tuple[Predictions | None, Predictions | None],
    truth: Array,
) -> dict[str, float]:
    scores = {
        f"auc_validation.{name}": auc(labels, p.probs[:, 1])
        for name, p in zip(firms, validation, strict=True)
    }
    one, two = contested
    if one is None or two is None:
        return scores
    for name, p in zip(firms, (one, two), strict=True):
        scores[f"auc_contested.{name}"] = auc(truth, p.probs[:, 1])
    both = stacked(validation, labels, (one, two))
    return scores | {"auc_contested.stacked": auc(truth, both)}


# --------------------------------------------------------------- every firm serves its own


def _own_cases(case: Case, terms: Terms, ask: Ask, record: Record, progress: Progress) -> Outcome:
    """Every firm scores the model it would use against its own."""
    market, state = case.market, progress.state
    assert isinstance(market, OwnCases)
    without = barred(case, progress)
    last = None if state.start is state.published else state.start
    requests = {
        name: Measure(_alone(), case.seed)
        if name in without or state.published is None
        else Measure(terms, case.seed, state.published, last, adopt=True)
        for name in case.firms
    }
    answers = ask(requests).usable
    scores = {
        name: (a, a.own_log_loss, market.price(a.own_passes))
        for name, a in sorted(answers.items())
        if isinstance(a, Scores) and a.own_log_loss is not None
    }
    for name, (s, *_) in scores.items():
        if s.report is not None:
            record.adopted(_adoption(case, name, s.adopted, s.report))
            for p in s.report.problems:
                facts = (p.check, p.name, p.theme, p.opened, p.closed)
                record.objected(Objection(case.seed, case.contract.name, name, *facts))
    # A donor's training for the others is that of its own model.
    donated, paid = terms.models and case.strategy.local_epochs == 0, progress.passes
    sharing = [name for name in case.firms if name not in without]
    costs = market.costs(progress.passes, sharing if terms.models else ())
    return Outcome(
        seed=case.seed,
        contract=terms.contract,
        summaries={
            name: Summary(
                cases=s.cases,
                population=case.populations.get(name, s.cases),
                payoff=-s.log_loss,
                gain=own - s.log_loss,
                variance=s.variance,
                adopted=s.adopted,
                cost=costs.get(name, 0.0)
                # Who uses its own model has trained it too; who judges has computed for that.
                + (trained if s.adopted == "own" and not (donated and name in paid) else 0.0)
                + (market.price(s.report.passes) if s.report is not None else 0.0),
            )
            for name, (s, own, trained) in scores.items()
        },
        scores={
            f"{kind}.{name}": value
            for name, (s, *_) in scores.items()
            for kind, value in (("accuracy", s.accuracy), ("auc", s.auc))
            if value is not None
        },
    )


def _adoption(case: Case, firm: str, adopted: str, report: ReuseReport) -> Adoption:
    middle, low, high = report.forecast or (None, None, None)
    return Adoption(
        seed=case.seed,
        contract=case.contract.name,
        firm=firm,
        adopted=adopted,
        decision=report.decision,
        probed=report.probed,
        passes=report.passes,
        forecast=middle,
        forecast_low=low,
        forecast_high=high,
        history=report.history,
        refused=report.refused,
        measures=" ".join(f"{name}={value:.6g}" for name, value in report.measures.items()),
    )


def _alone() -> Terms:
    return NoSharing().terms(0)


def _of(answers: Answers, name: str, kind: type[Kind]) -> Kind:
    answer = answers.usable.get(name)
    if not isinstance(answer, kind):
        raise FedpactError(
            f"{name} gave no {kind.__name__} ({answers.refused.get(name, 'no answer')}), and a "
            "contest needs both firms. Mend that firm and go on with resume=DIR."
        )
    return answer
