"""What a masked round costs beside a plain one: messages, bytes and CPU, without any training."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import process_time
from typing import final

import numpy as np

from parties.exchange import (
    Answer,
    Deal,
    FedpactError,
    Keys,
    Masking,
    Offer,
    Refusal,
    Request,
    Terms,
    Trained,
    Unmask,
    Weights,
    pack,
)
from parties.masking.masker import Masker
from parties.memory import Memory
from server.intake import Limits
from server.masked_sum import SUM, add_up
from server.strategies import average
from server.transport import Answers
from simulations.bench.row import Row, add_count
from simulations.traffic import size

TERMS = Terms("train_sharing", models=True, predictions=False, rounds=1, secure=True)
SIZES = ((4, 2_410), (10, 2_410), (10, 101_770), (30, 101_770))
"""(firms, parameters): the MLPs of digits and of clothing."""


@final
@dataclass
class Cost:
    """Of one round: messages, bytes down and up, CPU seconds of all firms and of the operator."""

    messages: int = 0
    down: int = 0
    up: int = 0
    firms: float = 0.0
    operator: float = 0.0

    def count(self, asked: Request, told: Answer | None) -> None:
        self.messages += 2
        self.down += size(pack(asked))
        self.up += 0 if told is None else size(pack(told))


@final
class Masked:
    """Firms that have a model and mask it; the last some of them fall silent before they do."""

    def __init__(self, models: Mapping[str, Weights], silent: int) -> None:
        self.models, self.cost = models, Cost()
        self._gone = set(sorted(models)[len(models) - silent :])
        self._maskers = {name: (Masker(name, private=True), Memory()) for name in models}

    def ask(self, requests: Mapping[str, Request], minimum: int | None = None) -> Answers:
        answers = Answers()
        for name, asked in sorted(requests.items()):
            if isinstance(asked, Offer) and name in self._gone:
                answers.silent[name] = "it is gone"
                self.cost.count(asked, None)
                continue
            since = process_time()
            told = self._answer(name, asked)
            self.cost.firms += process_time() - since
            self.cost.count(asked, told)
            answers.usable[name] = told
        return answers

    def _answer(self, name: str, asked: Request) -> Answer:
        (masker, memory), model = self._maskers[name], self.models[name]
        assert isinstance(asked, Keys | Deal | Offer | Unmask)
        if objection := masker.objection(asked, memory):
            return Refusal(objection)
        match asked:
            case Keys():
                return masker.advertise(asked, memory, model.examples)
            case Deal():
                return masker.deal(asked, memory)
            case Offer():
                return Trained(model.examples, (0.5,), masked=masker.mask(asked, memory, model))
            case Unmask():
                return masker.unmask(asked, memory)


def masked_round(models: Mapping[str, Weights], silent: int) -> Cost:
    """The cost of one round; its mean is that of the firms that did not fall silent."""
    firms = Masked(models, silent)
    start = next(iter(models.values()))
    since, asking = process_time(), 0.0

    def ask(requests: Mapping[str, Request], minimum: int | None = None) -> Answers:
        nonlocal asking
        begun = process_time()
        answers = firms.ask(requests, minimum)
        asking += process_time() - begun
        return answers

    def offer(masking: Masking) -> Offer:
        return Offer(TERMS, 0, 0, 1, start, masking=masking)

    _, found = add_up(ask, Keys(TERMS, 0, 0), offer, list(models), Limits(max_norm=1e9))
    firms.cost.operator = process_time() - since - asking
    if SUM not in found:
        raise FedpactError("the masked round is void; it should not be.")
    left = {name: models[name] for name in sorted(models)[: len(models) - silent]}
    for key, value in average(left).arrays.items():
        if not np.allclose(found[SUM].arrays[key], value, rtol=0, atol=1e-6):
            raise FedpactError(f"the masked mean of {key} is not the plain one to 1e-6.")
    return firms.cost


def plain_round(models: Mapping[str, Weights]) -> Cost:
    """The same round, with weights as they are."""
    cost, start = Cost(), next(iter(models.values()))
    offer = Offer(replace(TERMS, secure=False), 0, 0, 1, start)
    for model in models.values():
        cost.count(offer, Trained(model.examples, (0.5,), model))
    since = process_time()
    average(models)
    cost.operator = process_time() - since
    return cost


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_count(parser, "--repeats", 5, "in which rounds take turns")


def rows(chosen: argparse.Namespace) -> list[Row]:
    """Rows of CPU a number of firms, model and number that fell silent, printed with bytes."""
    repeats, told = chosen.repeats, list[Row]()
    print(f"One round, plain and masked, without training; medians of {repeats} alternated repeats")
    print("firms  parameters  silent  messages       kB a firm        CPU ms a firm  of operator")
    for firms, parameters in SIZES:
        rng = np.random.default_rng(0)
        models = {
            f"firm_{i:02}": Weights({"w": rng.normal(size=parameters).astype(np.float32)}, 50 + i)
            for i in range(firms)
        }
        found: dict[str, list[Cost]] = {"plain": [], "0": [], str(firms // 4): []}
        for _ in range(repeats):
            found["plain"].append(plain_round(models))
            for silent in (0, firms // 4):
                found[str(silent)].append(masked_round(models, silent))
        for who, costs in found.items():
            print(_line(firms, parameters, who, costs))
            told += _rows(firms, parameters, who, costs)
    return told


def _rows(firms: int, parameters: int, silent: str, costs: list[Cost]) -> list[Row]:
    masked = "plain" if silent == "plain" else f"masked, {silent} silent"
    name = f"{firms} firms, {parameters:,} parameters, {masked}"
    each = tuple(1e3 * cost.firms / firms for cost in costs)
    operator = tuple(1e3 * cost.operator for cost in costs)
    up = tuple(cost.up / firms / 1e3 for cost in costs)
    return [
        Row("CPU of a firm, a round without training", name, each, "ms"),
        Row("CPU of the operator", name, operator, "ms"),
        Row("What a firm sends", name, up, "kB"),
    ]


def _line(firms: int, parameters: int, silent: str, costs: list[Cost]) -> str:
    one = costs[0]
    each, operator = (
        1e3 * statistics.median(getattr(cost, who) for cost in costs) / share
        for who, share in (("firms", firms), ("operator", 1))
    )
    kilobytes = f"{one.down / firms / 1e3:,.1f} down {one.up / firms / 1e3:,.1f} up"
    return (
        f"{firms:5}  {parameters:10,}  {silent:>6}  {one.messages:8}  {kilobytes:>22}"
        f"  {each:13.2f}  {operator:11.2f}"
    )
