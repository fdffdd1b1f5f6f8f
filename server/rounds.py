"""The rounds of a session: who is asked to train, and what becomes of the answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from parties.exchange import (
    FedpactError,
    Keys,
    Measure,
    Offer,
    Scores,
    Terms,
    Trained,
    Weights,
)
from parties.exchange.masks import FEWEST_MASKED
from server.market import Unrivalled
from server.masked_sum import add_up
from server.outcome import Case, Progress, Record, Scored, Spent, Step
from server.strategies import Strategy
from server.transport import Answers, Ask


def hold_rounds(
    case: Case, terms: Terms, ask: Ask, record: Record, begin: Progress
) -> tuple[Progress, dict[str, Weights]]:
    """Train round by round, from what an interrupted session had come to.

    Returns:
        What the session has come to, and the last round's weights by firm.
    """
    progress, updates = begin, dict[str, Weights]()
    if terms.models:
        progress = replace(begin, riders=tuple(sorted({*begin.riders, *case.riders})))
    for turn in range(begin.state.turn, max(terms.rounds, 1)):
        updates.clear()  # the next are as large
        progress, updates = _round(case, terms, ask, record, progress, turn)
        if no_deal(case, barred(case, progress)):
            break
        if terms.models and case.strategy.combines:
            if case.watch and progress.state.published is not None:
                _watch(case, terms, ask, record, progress, turn)
            record.keep(case, progress)  # last: an interrupted round is held again, whole
    return progress, updates


def barred(case: Case, progress: Progress) -> set[str]:
    """Firms that get no common model: those that declined, and riders where riders get none."""
    market = case.market
    excluded = isinstance(market, Unrivalled) and market.excludes_riders
    return {*progress.declined, *(progress.riders if excluded else ())}


def no_deal(case: Case, without: Iterable[str]) -> bool:
    """Whether a contract cannot be held without the firms that declined it or are barred."""
    left_out = set(without)
    if not left_out:
        return False
    return case.market.contested or len(case.firms) - len(left_out) < case.contract.fewest


def _round(
    case: Case, terms: Terms, ask: Ask, record: Record, before: Progress, turn: int
) -> tuple[Progress, dict[str, Weights]]:
    strategy, state = case.strategy, before.state
    alone = not (terms.models and strategy.combines)
    offer = partial(
        Offer,
        terms,
        case.seed,
        turn,
        strategy.local_epochs if terms.models else 0,
        state.start,
        strategy.proximal if terms.models else 0.0,
        strategy.wants_precision and terms.models,
        strategy.wants_card and terms.models,
    )
    asked = tuple(name for name in case.firms if name not in barred(case, before))
    if not alone:
        asked = strategy.trainers(case.participation.asked(asked, case.seed, turn))
    fewest = max(strategy.fewest, FEWEST_MASKED if terms.secure else 0)
    if len(asked) < fewest and not alone:  # nothing to combine
        _void(case, record, turn, asked)
        return replace(before, state=replace(state, turn=turn + 1)), {}
    # Too few answers make the round void; only a contest cannot do without one of its firms.
    least = len(case.firms) if case.market.contested else None if alone else 0
    if terms.secure:
        opening = Keys(terms, case.seed, turn)
        answers, updates = add_up(ask, opening, lambda m: offer(masking=m), asked, case.limits)
    else:
        answers = ask(dict.fromkeys(asked, offer()), least)
        updates = {n: a.weights for n, a in _trained(answers).items() if a.weights is not None}
    failed = answers.faulty | answers.silent
    for status, firms in (("refused", answers.refused), ("excluded", failed)):
        for name in sorted(firms):
            record.curve(Step(case.seed, terms.contract, turn, 0, name, 0, float("nan"), status))
    trained = _trained(answers)
    passes, riders = dict(before.passes), set(before.riders)
    for name, answer in trained.items():
        for epoch, loss in enumerate(answer.losses):
            record.curve(Step(case.seed, terms.contract, turn, epoch, name, answer.examples, loss))
        cpu, gpu, joules, kg = answer.spent.tolist()
        record.spent(
            Spent(case.seed, terms.contract, turn, name, cpu, gpu, joules, kg, answer.known)
        )
        passes[name] = passes.get(name, 0) + answer.examples * len(answer.losses)
        if answer.examples == 0:
            riders.add(name)
    declined = {**before.declined, **answers.refused}
    if terms.models and not no_deal(case, declined):
        # A sum stands for as many as are in it, or there is none.
        if bool(updates) if terms.secure else alone or _enough(strategy, len(updates)):
            state = strategy.combine(updates, state)
        else:
            _void(case, record, turn, trained)
            state = replace(state, turn=turn + 1)
    after = replace(
        before,
        state=state,
        declined=declined,
        excluded={**before.excluded, **failed},
        passes=passes,
        riders=tuple(sorted(riders)),
    )
    return after, updates


def _trained(answers: Answers) -> dict[str, Trained]:
    return {n: a for n, a in sorted(answers.usable.items()) if isinstance(a, Trained)}


def _enough(strategy: Strategy, updates: int) -> bool:
    """Whether so few updates can be combined; the study was checked for full rounds only."""
    try:
        strategy.check(updates)
    except FedpactError:
        return False
    return True


def _void(case: Case, record: Record, turn: int, firms: Iterable[str]) -> None:
    """Note that a round has come to nothing."""
    for name in sorted(firms):
        record.curve(Step(case.seed, case.contract.name, turn, 0, name, 0, float("nan"), "void"))


def _watch(
    case: Case, terms: Terms, ask: Ask, record: Record, progress: Progress, turn: int
) -> None:
    """Every firm that gets it scores the model that was just published."""
    measure = Measure(terms, case.seed, progress.state.published, by_class=True, compare=False)
    asked = [name for name in case.firms if name not in barred(case, progress)]
    for name, s in sorted(ask(dict.fromkeys(asked, measure)).usable.items()):
        if isinstance(s, Scores) and s.by_class is not None:
            record.score(
                Scored(
                    seed=case.seed,
                    contract=terms.contract,
                    round=turn,
                    firm=name,
                    cases=s.cases,
                    log_loss=s.log_loss,
                    accuracy=s.accuracy,
                    auc=s.auc,
                    by_class=s.by_class,
                )
            )
