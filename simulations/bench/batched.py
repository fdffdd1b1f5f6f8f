"""What a firm's training costs in a batch, beside the plain loop; and what that is in a study.

Both train the same firms from the same published model, and a row whose losses differ does not
count. Repeats take turns, so that a busy machine slows both alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np
import pandas as pd
import torch

from parties.backbones import Backbone
from parties.backbones.cnn import Cnn
from parties.backbones.mlp import Mlp
from parties.batched import fit_together
from parties.datasets.digits import Digits
from parties.datasets.fashion_mnist import FashionMnist
from parties.datasets.pool import PoolPart
from parties.descent import Descent, cross_entropy
from parties.exchange import Array
from parties.fitting import Fit, Fitted
from parties.training import Training, load_weights, random_seed, weights_of
from simulations.bench.clients import named_device
from simulations.bench.row import Bar, Row, add_count
from simulations.bench.workloads import dealt
from simulations.build import build
from simulations.engines import Job

AGREE = 1e-5  # nats, of the losses of an epoch
STUDY = (
    "experiment=fedref_digits",
    "compare=none",
    "partition=iid",
    "study.seeds=1",
    "progress=none",
)
T = TypeVar("T")


@final
@dataclass(frozen=True)
class Trained:
    """Firms that train for an epoch, and how many times cheaper a batch must be (0: no bar)."""

    name: str
    backbone: Backbone
    firms: int
    examples: int
    batch: int
    bar: float

    def fits(self, features: Array, labels: Array, device: str) -> list[Fit]:
        """A training a firm, from a model that is the same for all."""
        start = weights_of(self.backbone.build(features.shape[1], 10, 0))
        return [
            Fit(
                Training(batch_size=self.batch, device=device),
                self.backbone,
                10,
                0,
                start,
                features[firm :: self.firms][: self.examples],
                labels[firm :: self.firms][: self.examples],
                random_seed(0, f"firm_{firm}"),
                1,
            )
            for firm in range(self.firms)
        ]


@final
@dataclass(frozen=True)
class _Clock:
    """What a repeat is measured by: a CPU's time; with a GPU the wall clock, until it is done."""

    device: str
    repeats: int

    @property
    def what(self) -> str:
        """What it tells."""
        if self.device == "cpu":
            return "CPU"
        return f"Wall clock, {torch.cuda.get_device_name(self.device)},"

    def now(self) -> float:
        """Seconds."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def timed(self, run: Callable[[], T]) -> tuple[float, T]:
        """Seconds that it took, and what came of it."""
        started = self.now()
        found = run()
        return self.now() - started, found


DIGITS = Trained("digits MLP", Mlp((32,)), firms=100, examples=14, batch=5, bar=8)
FASHION = (
    Trained("fashion MLP", Mlp((128,)), firms=50, examples=120, batch=32, bar=2),
    Trained("fashion CNN", Cnn(), firms=20, examples=60, batch=32, bar=0),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_count(parser, "--firms", 50, "of the study", least=2)
    add_count(parser, "--rounds", 20, "of the study")
    add_count(parser, "--repeats", 5, "in which batch and loop take turns")
    parser.add_argument(
        "--device",
        default="cpu",
        help="cpu (default), or cuda: wall clocks, without the targets, which are for CPUs",
    )


def rows(chosen: argparse.Namespace) -> list[Row]:
    """A row a model, and one for a whole study of so many firms and rounds, printed."""
    firms, rounds, repeats = chosen.firms, chosen.rounds, chosen.repeats
    clock = _Clock(named_device(chosen.device), repeats)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        print(f"{clock.what} ms of a firm's epoch, one thread, {repeats} alternated repeats")
        told = [_fits(DIGITS, _examples(Digits(client=0, clients=1)), clock)]
        clothing = _clothing()
        told += [_fits(row, clothing, clock) for row in FASHION]
        print(
            f"{clock.what} ms of a firm's round; a study of {firms} firms, {rounds} rounds, built "
            "and held"
        )
        return [*told, _studies(firms, rounds, clock)]
    finally:
        torch.set_num_threads(threads)


def _examples(dataset: PoolPart) -> tuple[Array, Array]:
    training = dataset.split(0).training
    return training.features, training.labels


def _clothing() -> tuple[Array, Array]:
    dataset = FashionMnist(client=0, clients=1, limit=6000)
    if dataset.installed:
        return _examples(dataset)
    print("  (Fashion-MNIST is not installed: random images of its size in its place)")
    rng = np.random.default_rng(0)
    return rng.random((6000, 784)).astype(np.float32), rng.integers(0, 10, 6000)


def _fits(row: Trained, examples: tuple[Array, Array], clock: _Clock) -> Row:
    fits, bar = row.fits(*examples, clock.device), row.bar if clock.device == "cpu" else 0
    _loop(fits[:2])  # the first calls are for warming up
    fit_together(fits)
    pairs, apart = [], []
    for _ in range(clock.repeats):
        loop, one = clock.timed(partial(_loop, fits))
        batch, other = clock.timed(partial(fit_together, fits))
        pairs.append((loop / row.firms, batch / row.firms))
        apart.append(np.abs(_losses(one) - _losses(other)).max())
    parameters = sum(array.size for array in (fits[0].start or {}).values())
    line = _line(pairs, "loop", float(np.max(apart)), bar)
    print(f"  {row.name:12} {parameters:7,} parameters  {line}")
    what = f"{clock.what} of a firm's epoch, one thread: times less than the loop"
    return _row(what, row.name, pairs, "loop", float(np.max(apart)), bar)


def _loop(fits: Sequence[Fit]) -> list[Fitted]:
    """One model for all, one after the other, each step by autograd: how one would write it."""
    first = fits[0]
    module = first.backbone.build(first.features.shape[1], first.classes, 0)
    module.to(first.training.torch_device)
    descent, found = Descent(module, cross_entropy), []
    for fit in fits:
        assert fit.start is not None
        load_weights(module, fit.start)
        losses = fit.training.fit(
            module, fit.features, fit.targets, fit.shuffle, fit.epochs, descent=descent
        )
        found.append((weights_of(module), losses))
    return found


def _losses(fitted: Sequence[Fitted]) -> Array:
    return np.array([losses for _, losses in fitted])


def _studies(firms: int, rounds: int, clock: _Clock) -> Row:
    pairs, apart, device = [], [], f"training.device={clock.device}"
    for _ in range(clock.repeats):
        inline, one = clock.timed(partial(_curves, _config("inline", firms, rounds, device)))
        batched, other = clock.timed(partial(_curves, _config("batched", firms, rounds, device)))
        pairs.append((inline / firms / rounds, batched / firms / rounds))
        apart.append(np.abs(one - other).max())
    line = _line(pairs, "inline", float(np.max(apart)), 0)
    print(f"  {'whole study':12} {'':18}  {line}")
    what = f"{clock.what} of a firm's round; a study of {firms} firms, {rounds} rounds: times less"
    return _row(what, "whole study", pairs, "inline", float(np.max(apart)), 0)


def _config(engine: str, firms: int, rounds: int, device: str) -> dict[str, Any]:
    """Nothing of one repeat is remembered in the next."""
    words = [*STUDY, f"engine={engine}", f"strategy.rounds={rounds}", device]
    words += ["engine.remember_mb=0"] * (engine == "batched")
    return dealt(words, firms)


def _curves(config: dict[str, Any]) -> Array:
    """The losses of a study that is held."""
    with tempfile.TemporaryDirectory(prefix="fedpact-bench-") as folder:
        job = Job(json.dumps(config), Path(folder), tuple(sorted(config["parties"])))
        build(config["engine"]).hold(job)
        losses: Array = pd.read_csv(Path(folder) / "rounds.csv")["loss"].to_numpy()
    return losses


def _line(pairs: Sequence[tuple[float, float]], beside: str, apart: float, bar: float) -> str:
    """Medians, how many times cheaper a batch is, and how far the losses are apart."""
    ratios = [loop / batch for loop, batch in pairs]
    middle = statistics.median(ratios)
    theirs, ours = (1000 * statistics.median(pair[i] for pair in pairs) for i in (0, 1))
    line = f"{theirs:7.3f} {beside:6} {ours:7.3f} batched  {middle:5.1f} x less"
    line += f" [{min(ratios):.1f} to {max(ratios):.1f}], losses within {apart:.0e}"
    if not apart <= AGREE:
        return f"{line}: does not count"
    if not bar:
        return line
    return f"{line}, at least {bar:g}: {'holds' if middle >= bar else 'missed'}"


def _row(
    what: str,
    name: str,
    pairs: Sequence[tuple[float, float]],
    beside: str,
    apart: float,
    bar: float,
) -> Row:
    """The same as a row of the report."""
    return Row(
        what,
        name,
        tuple(1000 * batch for _, batch in pairs),
        "ms",
        tuple(loop / batch for loop, batch in pairs),
        f"less than {beside}",
        Bar(bar, least=True) if bar else None,
        "" if apart <= AGREE else f"its losses differ by {apart:.0e}",
    )
