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
from server.game.told import told_table, turned
from server.market import Contest, OwnCases, after_price
from server.outcome import (
    Adoption,
    Case,
    Objection,
    Outcome,
    Progress,
    Record,
    Summary,
    Unrecorded,
)
from server.rounds import barred, hold_rounds, no_deal
from server.scores import auc, stacked
from server.serving import same_clients, serve
from server.settling import Settling
from server.transport import GO_ON, Answers, Ask

Kind = TypeVar("Kind")
NO_EDGES: Mapping[str, Array] = {}


def hold_session(
    case: Case,
    ask: Ask,
    settling: Settling,
    record: Record | None = None,
    begin: Progress | None = None,
) -> Outcome:
    """Hold one market under one contract: offer, exchange for some rounds, then play or measure.

    Args:
        case: what is held.
        ask: puts questions to the firms.
        settling: how it comes out what clients turned out to be.
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
        alone = hold_session(replace(case, contract=NoSharing()), ask, settling)
        return replace(alone, contract=case.contract.name, **fates)
    match case.market.clients:
        case "contested":
            outcome = _contest(case, terms, ask, settling, updates)
        case "common":
            outcome = serve(case, terms, ask, settling, progress)
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
    case: Case, terms: Terms, ask: Ask, settling: Settling, updates: Mapping[str, Weights]
) -> Outcome:
    """Measure the joint table, solve the game on what the firms may know, act, settle."""
    market = case.market
    assert isinstance(market, Contest)
    first, second = case.firms
    validation = _predictions(case, terms, ask, "validation", settling)
    labels = settling.classes(case, terms, ask, validation[0].ids)
    edges = [case.play.edges(p.probs[:, 1], market) for p in validation]
    epsilon = terms.prediction_epsilon
    if epsilon:  # a signal that no probability stands for cannot be told
        edges = [e[e > 0] for e in edges]
    signals = [np.digitize(p.probs[:, 1], e) for p, e in zip(validation, edges, strict=True)]
    table = joint_table(labels, signals[0], signals[1], len(edges[0]) + 1, len(edges[1]) + 1)
    belief = table if terms.models else case.play.prior.mean(table)
    maps = case.play.maps(belief, market, shared=terms.predictions, epsilon=epsilon)

    shown: tuple[Predictions | None, Predictions | None] = (None, None)
    if terms.predictions:
        bounds = dict(zip(case.firms, edges, strict=True)) if epsilon else {}
        shown = _predictions(case, terms, ask, "contested", settling, bounds)
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
            _rule(edges[1], edges[0], turned(maps[1]), terms.predictions),
            belief.transpose(0, 2, 1),
            rival=shown[0],
            rival_model=updates.get(first),
        ),
    }
    answers = ask(requests, len(case.firms))
    acted = {name: _of(answers, name, Actions) for name in case.firms}
    ids = settling.expected(case, "contested", {name: a.ids for name, a in acted.items()})
    for name, answer in acted.items():
        same_clients(answer.ids, ids, name)
    exactly = (None, None) if epsilon else shown  # noise hides how good a model is
    bill = settling.bill(
        case,
        terms,
        ask,
        {name: answer.actions for name, answer in acted.items()},
        _scored(case, validation, labels, exactly),
    )
    joint = told_table(table, epsilon) if epsilon else table
    exact = after_price(payoffs(joint, maps, market.payoff, market.gamma), terms.price)
    price = {first: terms.price, second: -terms.price}  # what each is paid
    return Outcome(
        seed=case.seed,
        contract=terms.contract,
        ids=dict.fromkeys(bill.payoffs, ids),
        payoffs={n: paid + price[n] if terms.price else paid for n, paid in bill.payoffs.items()},
        summaries={n: replace(told, cost=-price[n]) for n, told in bill.summaries.items()},
        predicted={name: float(exact[i]) for i, name in enumerate(case.firms)},
        table=table,
        clients=validation[0].ids,
        belief=belief,
        maps=maps,
        scores={**_validation_scores(case, validation, labels), **bill.scores},
    )


def _predictions(
    case: Case,
    terms: Terms,
    ask: Ask,
    part: str,
    settling: Settling,
    edges: Mapping[str, Array] = NO_EDGES,
) -> tuple[Predictions, Predictions]:
    """Both firms' predictions for a part; as signals with these bounds, where noise is on them."""
    queries = {name: Query(terms, case.seed, part, edges.get(name)) for name in case.firms}
    answers = ask(queries, len(case.firms))
    told = {name: _of(answers, name, Predictions) for name in case.firms}
    ids = settling.expected(case, part, {name: p.ids for name, p in told.items()})
    for name, predictions in told.items():
        same_clients(predictions.ids, ids, name)
    first, second = case.firms
    return told[first], told[second]


def _rule(edges: Array, rival_edges: Array, actions: Array, shared: bool) -> DecisionRule:
    """A firm's part of the play: own signals along axis 0; the rival's only where it is seen.

    Where signals are told with noise: own ones, what it told of them, what the rival told.
    """
    if actions.ndim == 4:
        return DecisionRule(edges, rival_edges, actions[:, 0])
    if shared:
        return DecisionRule(edges, rival_edges, actions)
    return DecisionRule(edges, np.empty(0), actions[:, 0])


def _validation_scores(
    case: Case, validation: tuple[Predictions, Predictions], labels: Array
) -> dict[str, float]:
    """How well both firms' models rank the validation clients."""
    if not case.scored:
        return {}
    pairs = zip(case.firms, validation, strict=True)
    return {f"auc_validation.{name}": auc(labels, p.probs[:, 1]) for name, p in pairs}


def _scored(
    case: Case,
    validation: tuple[Predictions, Predictions],
    labels: Array,
    contested: tuple[Predictions | None, Predictions | None],
) -> dict[str, Array]:
    """Scores of contested clients by which the models are judged, where predictions are shared."""
    one, two = contested
    if one is None or two is None or not case.scored:
        return {}
    scores = {
        f"auc_contested.{name}": p.probs[:, 1]
        for name, p in zip(case.firms, (one, two), strict=True)
    }
    return scores | {"auc_contested.stacked": stacked(validation, labels, (one, two))}


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
            f"contest needs both firms. {GO_ON}"
        )
    return answer
