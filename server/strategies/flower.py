"""Flower's aggregation rules as ours. The only file of the rules that knows Flower."""

from __future__ import annotations

import inspect
import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import get_ident
from typing import Any, cast

import flwr.serverapp.strategy as rules
import numpy as np
from flwr.app import (
    Array as FlowerArray,
)
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    Metadata,
    MetricRecord,
    RecordDict,
)
from flwr.app.message import make_message
from flwr.serverapp import Grid

from parties.exchange import Array, FedpactError, Weights
from server.strategies import State, Strategy, as_type, average

Arrays = dict[str, Array]

STATISTICS = (".running_mean", ".running_var")  # torch's names in its normalising layers
UNFIT = {"QFedAvg", "FedXgbBagging", "FedXgbCyclic"}  # need the firms' losses, or tree models
NUMERIC = (np.ndarray, np.generic)
MEANS = {"FedAvg", "FedProx", "FedAvgM", "FedAdam", "FedYogi", "FedAdagrad"}  # use the mean only
CALLS = "flower"  # memory: how often Flower was asked; the next call is its round CALLS + 1


@dataclass(frozen=True)
class FlowerRule(Strategy):
    """One call of a `flwr.serverapp.strategy` object a round; its memory lives in our State.

    Flower is given float64 tensors in the order of their names, from firms in the order of
    theirs, and so neither the order of replies nor float32 sums decide anything; results come back
    in the type of the tensor. Whole-number tensors (BatchNorm's counters) are combined by the same
    rule in a call of their own, so that they do not count in distances between models.

    A *server optimiser* (a Flower object with `current_arrays`: FedAvgM, FedAdam ...) steps from
    the model that firms trained from, `state.start`. In round 0 the operator does not know that
    model, so the round's result is the plain average, and Flower's round 1 is the next one. It
    takes steps in weights only: counters and BatchNorm's running mean and variance are the plain
    average, for a step can make a variance negative.
    """

    combines = True
    weighted = True  # Flower learns the firms' numbers of examples (else: equal ones)

    @property
    @abstractmethod
    def flower(self) -> tuple[str, Mapping[str, float]]:
        """The name of a class of `flwr.serverapp.strategy`, and its options."""

    @property
    def linear(self) -> bool:
        return self.flower[0] in MEANS

    def combine(self, updates: Mapping[str, Weights], state: State) -> State:
        if not updates:
            return replace(state, turn=state.turn + 1)
        self.check(len(updates))
        plain = average(updates)
        rule = made(*self.flower)
        optimiser = hasattr(rule, "current_arrays")
        if optimiser and state.start is None:
            return replace(state, turn=state.turn + 1, start=plain, published=plain)
        calls = int(state.memory.get(CALLS, {}).get("calls", np.asarray(0)))
        keys, counters = _parts(plain, optimiser)
        recall(rule, state.memory)
        if optimiser and state.start is not None:
            current = record({k: state.start.arrays[k] for k in keys})
            rule.configure_train(calls + 1, current, ConfigRecord(), cast(Grid, None))
        found = self._asked(rule, calls + 1, updates, keys) if keys else {}
        memory = remembered(rule, made(*self.flower))
        if counters and not optimiser:
            found |= self._asked(made(*self.flower), calls + 1, updates, counters)
        arrays = {k: as_type(found[k], v) if k in found else v for k, v in plain.arrays.items()}
        model = Weights(arrays, plain.examples)
        others = {k: v for k, v in state.memory.items() if k.split("/")[0] != CALLS}
        memory |= {CALLS: {"calls": np.asarray(calls + 1)}}
        return replace(
            state, turn=state.turn + 1, start=model, published=model, memory=others | memory
        )

    def _asked(
        self, rule: rules.FedAvg, turn: int, updates: Mapping[str, Weights], keys: list[str]
    ) -> Arrays:
        """These tensors of the updates, aggregated by Flower."""
        replies = [
            reply(place, {k: updates[name].arrays[k] for k in keys}, examples)
            for place, name in enumerate(sorted(updates))
            for examples in [updates[name].examples if self.weighted else 1]
        ]
        kind = type(rule).__name__
        try:
            with quiet():
                found, _ = rule.aggregate_train(turn, replies)
        except Exception as fault:
            raise FedpactError(f"Flower's {kind} failed: {fault}. {_ADVICE}") from fault
        if found is None:
            raise FedpactError(f"Flower's {kind} made no model of {len(updates)}. {_ADVICE}")
        return {k: v.numpy() for k, v in found.items()}


_ADVICE = "Legal are the options and numbers of firms that it documents. Or use strategy=fedavg."


def _parts(model: Weights, optimiser: bool) -> tuple[list[str], list[str]]:
    """Names of the tensors that the rule combines, and of those of whole numbers; sorted."""
    whole = {k for k, v in model.arrays.items() if v.dtype.kind != "f"}
    fixed = {k for k in model.arrays if optimiser and k.endswith(STATISTICS)}
    return sorted(model.arrays.keys() - whole - fixed), sorted(whole)


class _Record(ArrayRecord):
    """A record that is not emptied on reading: Flower's Bulyan would run the garbage collector
    of the whole process once a firm (75 ms each; without, a call takes 2 ms)."""

    def to_numpy_ndarrays(self, *, keep_input: bool = True) -> list[Array]:
        return super().to_numpy_ndarrays(keep_input=True)


def record(arrays: Mapping[str, Array]) -> ArrayRecord:
    """Tensors as Flower's record: float64, by name (Flower pairs tensors by their place)."""
    return _Record(
        {k: FlowerArray(np.asarray(arrays[k], dtype=np.float64)) for k in sorted(arrays)}
    )


def reply(place: int, arrays: Mapping[str, Array], examples: int) -> Message:
    """A firm's reply. Its metadata is given whole: `Message(content, ...)` would ask for the
    TaskIdentity of a running Flower task, which an operator's rule must not depend on."""
    content = RecordDict(
        {"arrays": record(arrays), "metrics": MetricRecord({"num-examples": examples})}
    )
    metadata = Metadata(
        run_id=0,
        message_id=f"reply-{place}",
        src_node_id=place + 1,
        dst_node_id=0,
        reply_to_message_id=f"request-{place}",
        group_id="",
        created_at=0.0,
        ttl=0.0,
        message_type=MessageType.TRAIN,
    )
    return make_message(metadata, content)


@contextmanager
def quiet() -> Iterator[None]:
    """Flower's logger drops what this thread says meanwhile; nothing else is changed."""
    thread, logger = get_ident(), logging.getLogger("flwr")

    def spoken_elsewhere(_: logging.LogRecord) -> bool:
        return get_ident() != thread

    logger.addFilter(spoken_elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(spoken_elsewhere)


# ------------------------------------------------------------- Flower's objects and memory


def made(name: str, options: Mapping[str, Any]) -> rules.FedAvg:
    """A fresh Flower object. It notes the firms' start, but draws no sample of nodes: with a
    fraction of 0 `configure_train` ends before it would wait for nodes and use `random`."""
    kinds = known()
    if name not in kinds:
        raise FedpactError(
            f"strategy.strategy is {name!r}; legal are {', '.join(sorted(kinds))}. Flower's others "
            "wrap a strategy, combine trees or need the firms' losses."
        )
    legal = options_of(kinds[name])
    for option in options:
        if option not in legal:
            raise FedpactError(
                f"strategy.options holds {option!r}, which Flower's {name} does not have; legal "
                f"are {', '.join(legal) or 'none'}. Mend or remove it."
            )
    try:
        with quiet():
            rule = kinds[name](**options)
    except Exception as fault:
        raise FedpactError(f"Flower's {name} refused {dict(options)}: {fault}") from fault
    rule.fraction_train = 0.0
    return rule


def known() -> dict[str, type[rules.FedAvg]]:
    """Flower's rules that combine models and numbers of examples, by name."""
    kinds = {name: getattr(rules, name) for name in rules.__all__ if name not in UNFIT}
    return {n: k for n, k in kinds.items() if isinstance(k, type) and issubclass(k, rules.FedAvg)}


def options_of(kind: type[rules.FedAvg]) -> dict[str, float]:
    """Name -> default of its numbers, less those of sampling nodes, which is not its task here."""
    return {
        name: p.default
        for name, p in inspect.signature(kind).parameters.items()
        if isinstance(p.default, int | float) and not name.startswith(("fraction_", "min_"))
    }


def remembered(rule: object, fresh: object) -> dict[str, Arrays]:
    """What a Flower object keeps in its attributes: every record, dict or list of arrays, every
    array, and every number that is no longer that of a fresh object."""
    found: dict[str, Arrays] = {}
    for name, value in vars(rule).items():
        match value:
            case ArrayRecord():
                found[f"{CALLS}/{name}/record"] = {k: v.numpy() for k, v in value.items()}
            # Arithmetic on 0-d arrays gives numpy's numbers.
            case dict() if value and all(isinstance(v, NUMERIC) for v in value.values()):
                found[f"{CALLS}/{name}/dict"] = {k: np.asarray(v) for k, v in value.items()}
            case list() if value and all(isinstance(v, NUMERIC) for v in value):
                found[f"{CALLS}/{name}/list"] = {
                    f"{i:06d}": np.asarray(v) for i, v in enumerate(value)
                }
            case np.ndarray():
                found[f"{CALLS}/{name}/array"] = {"value": value}
            case int() | float() if value != getattr(fresh, name, None):
                found[f"{CALLS}/{name}/number"] = {"value": np.asarray(value)}
    return found


def recall(rule: object, memory: Mapping[str, Mapping[str, Array]]) -> None:
    """Give a fresh Flower object what `remembered` kept; the arrays are copied."""
    for place, arrays in memory.items():
        if not place.startswith(f"{CALLS}/"):
            continue
        _, name, kind = place.split("/")
        copies = {k: np.array(arrays[k]) for k in sorted(arrays)}
        value: Any = copies
        if kind == "record":
            value = record(copies)
        elif kind == "list":
            value = list(copies.values())
        elif kind in ("array", "number"):
            value = copies["value"] if kind == "array" else copies["value"].item()
        setattr(rule, name, value)
