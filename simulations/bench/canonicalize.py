"""What a canonicalization costs, beside the library equiadapt and beside a frozen model alone.

Both canonicalizers get the same network, reference vector and random images, and a row whose
answers differ is void. equiadapt has an interpreter of its own (`make bench-peers`), which waits
while ours runs; repeats take turns, so that a busy machine slows both alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from parties.canonicalize import Canonicalizer
from parties.canonicalize.backbone import CanonicalBackbone
from parties.canonicalize.cosine import Cosine
from parties.canonicalize.groups import Group
from parties.canonicalize.scalar import Scalar
from parties.exchange import FedpactError
from simulations.bench.peers.equiadapt import Answer, cpu_seconds
from simulations.bench.row import Bar, Row, add_count

ROOT = Path(__file__).parents[2]
PEER = ROOT / ".venv-peers" / "bin" / "python"
SCORES_AGREE = 1e-5
PIXELS_AGREE = 1e-4  # of values between 0 and 1
CALLS = 5  # canonicalizations a repeat
PATIENCE_S = 300.0  # a request
LOG = "stderr.txt"
# equiadapt repeats the pixels at the edge, which is padding="border" here.
PADDING = "border"
RECIPE = Cosine(temperature=1.0)
SIZES = ((128, 32), (4, 224))  # images a batch, side
BACKBONE = (128, 40)
# At most so much: CPU time over equiadapt's, and over the frozen model's alone.
PEER_BAR = 0.6
BACKBONE_BARS = {4: 1.3, 8: 1.6}


@final
@dataclass(frozen=True)
class Agreement:
    """How far two canonicalizers agree on the same images.

    Args:
        same: share of images with the same best element.
        quarters, others: the largest difference of two scores under quarter turns, and under the
            others, where there are any.
        images: the largest difference of two pixels where the best element is the same.
    """

    same: float
    quarters: float
    others: float | None
    images: float

    @classmethod
    def between(cls, one: Answer, two: Answer) -> Agreement:
        """Of two answers about the same images."""
        apart = (one.scores - two.scores).abs().amax(0)
        quarter = torch.arange(len(apart)) % (len(apart) // 4) == 0
        same = one.element == two.element
        pixels = (one.images - two.images)[same].abs()
        return cls(
            same.double().mean().item(),
            apart[quarter].max().item(),
            apart[~quarter].max().item() if len(apart) > 4 else None,
            pixels.max().item() if pixels.numel() else 0.0,
        )

    @property
    def holds(self) -> bool:
        """The same elements, the same scores, the same images."""
        scores = [self.quarters] if self.others is None else [self.quarters, self.others]
        return (
            self.same == 1
            and all(apart <= SCORES_AGREE for apart in scores)
            and self.images <= PIXELS_AGREE
        )

    def __str__(self) -> str:
        others = "" if self.others is None else f" (other turns: {self.others:.0e})"
        return (
            f"same element {100 * self.same:5.1f} %, images within {self.images:.0e}, "
            f"scores within {self.quarters:.0e}{others}"
        )


@final
@dataclass(frozen=True)
class Case:
    """Some images, and a canonicalizer of them that the peer can have too."""

    turns: int
    images: Tensor
    padding: str = PADDING

    @property
    def name(self) -> str:
        """Such as "C4, 128 of 32 px"."""
        return f"C{self.turns}, {len(self.images)} of {self.images.shape[-1]} px"

    @property
    def canonicalizer(self) -> Canonicalizer:
        channels, side = self.images.shape[1:3]
        group = Group(self.turns, padding=self.padding)
        return Canonicalizer(group, RECIPE.build(channels, side, group, 0)).eval()

    @torch.inference_mode()
    def answer(self) -> Answer:
        """What ours makes of the images."""
        found = self.canonicalizer(self.images)
        return Answer(found.scores, found.element, found.images)

    def write(self, path: Path) -> None:
        """Images, network and reference vector, for the peer."""
        tensors = {k: v.numpy() for k, v in self.canonicalizer.scorer.state_dict().items()}
        np.savez(path, images=self.images.numpy(), **tensors)


@final
class Peer:
    """equiadapt behind its interpreter; `starting` makes one."""

    def __init__(self, python: Path, process: subprocess.Popen[str], folder: Path) -> None:
        self._python, self._process, self._folder = python, process, folder

    @classmethod
    @contextmanager
    def starting(cls, python: Path) -> Iterator[Peer]:
        """The interpreter, until the block ends."""
        with tempfile.TemporaryDirectory(prefix="fedpact-bench-") as name:
            folder = Path(name)
            with (
                (folder / LOG).open("w") as errors,
                subprocess.Popen(
                    [python.absolute(), "-W", "ignore", "-m", "simulations.bench.peers.equiadapt"],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                ) as process,
            ):
                try:
                    yield cls(python, process, folder)
                finally:
                    process.kill()

    def answer(self, case: Case) -> Answer:
        """What it makes of the images."""
        path = self._written(case)
        self._ask(path, case, 0)
        return Answer.read(path.with_suffix(".answer.npz"))

    def cpu_seconds(self, case: Case) -> float:
        """CPU seconds of one canonicalization."""
        return float(self._ask(self._written(case), case, CALLS)["cpu_s"])

    def _written(self, case: Case) -> Path:
        path = self._folder / f"{case.name}.npz"
        if not path.exists():
            case.write(path)
        return path

    def _ask(self, path: Path, case: Case, calls: int) -> dict[str, Any]:
        asked = {"path": str(path), "turns": case.turns, "widths": RECIPE.widths, "calls": calls}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # A peer that hangs is ended, which is read as the end of its replies.
        patience = Timer(PATIENCE_S, self._process.kill)
        patience.start()
        try:
            print(json.dumps(asked), file=self._process.stdin, flush=True)
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        finally:
            patience.cancel()
        if not reply:
            said = (self._folder / LOG).read_text().splitlines() or ["it said nothing"]
            raise FedpactError(
                f"{self._python} canonicalized nothing: {said[-1]}. Legal is an interpreter that "
                "can import equiadapt. Make one by `make bench-peers`."
            )
        told: dict[str, Any] = json.loads(reply)
        return told


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_count(parser, "--images", 512, "random images to compare on")
    parser.add_argument(
        "--peer",
        type=Path,
        default=PEER,
        help="interpreter that has equiadapt; where there is none, ours is told alone",
    )
    add_count(parser, "--repeats", 7, "in which canonicalizers take turns")


def rows(chosen: argparse.Namespace) -> list[Row]:
    """A row a case, printed: CPU time beside equiadapt, where it agrees, and overhead."""
    repeats, python = chosen.repeats, chosen.peer
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            if python.is_file():
                with Peer.starting(python) as peer:
                    told = _times(repeats, peer, _agreement(peer, chosen.images))
            else:
                print(f"equiadapt is not there ({python}): `make bench-peers` installs it")
                told = _times(repeats, None, {})
            return told + _overhead(repeats)
    finally:
        torch.set_num_threads(threads)


def _agreement(peer: Peer, count: int) -> dict[int, bool]:
    """Whether both agree, by the number of turns."""
    print(f"Beside equiadapt: one network and reference vector, {count} random RGB images of 32 px")
    found = {}
    for turns in (4, 8):
        case = Case(turns, _images(count, 3, 32))
        theirs = peer.answer(case)
        agreement = Agreement.between(case.answer(), theirs)
        found[turns] = agreement.holds
        print(f"  {f'C{turns}':17} {agreement}{'' if agreement.holds else ': differ'}")
        if turns > 4:
            zeros = Agreement.between(Case(turns, case.images, "zeros").answer(), theirs)
            print(f"  {f'C{turns}, zeros':17} {zeros}")
    return found


def _times(repeats: int, peer: Peer | None, agreed: dict[int, bool]) -> list[Row]:
    what, told = "CPU of one canonicalization, RGB, one thread", list[Row]()
    print(f"CPU ms of one canonicalization, RGB, one thread, {repeats} alternated repeats")
    for count, side in SIZES:
        for turns in (4, 8):
            case = Case(turns, _images(count, 3, side))
            run = partial(case.canonicalizer, case.images)
            run()
            if peer is None:
                ours = [cpu_seconds(run, CALLS) for _ in range(repeats)]
                print(f"  {case.name:17} {_ms(ours)} ours")
                told.append(Row(what, case.name, tuple(1000 * s for s in ours), "ms"))
            elif not agreed[turns]:
                print(f"  {case.name:17} void: its answers differ")
                told.append(Row(what, case.name, (), "ms", void="its answers differ"))
            else:
                peer.cpu_seconds(case)  # the first call is its warm-up
                pairs = [(cpu_seconds(run, CALLS), peer.cpu_seconds(case)) for _ in range(repeats)]
                print(f"  {case.name:17} {_line(pairs, 'ours', 'equiadapt', PEER_BAR)}")
                told.append(_row(what, case.name, pairs, "equiadapt", PEER_BAR))
    return told


def _overhead(repeats: int) -> list[Row]:
    what, told = "CPU of a frozen model, canonicalized", list[Row]()
    count, side = BACKBONE
    print(f"CPU ms of a frozen model, alone and canonicalized, {count} grey images of {side} px")
    images, alone = _images(count, 1, side), _backbone()
    for turns in (4, 8):
        group = Group(turns)
        canonicalizer = Canonicalizer(group, Scalar().build(1, side, group, 0))
        runs = [
            partial(model, images)
            for model in (CanonicalBackbone(alone, canonicalizer).eval(), alone)
        ]
        for run in runs:
            run()
        pairs = [tuple(cpu_seconds(run, CALLS) for run in runs) for _ in range(repeats)]
        line = _line(pairs, "canonicalized", "alone", BACKBONE_BARS[turns])
        print(f"  {f'C{turns}, scalar':17} {line}")
        told.append(_row(what, f"C{turns}, scalar", pairs, "alone", BACKBONE_BARS[turns]))
    return told


def _row(what: str, name: str, pairs: Sequence[tuple[float, ...]], beside: str, bar: float) -> Row:
    ours, ratios = tuple(1000 * a for a, _ in pairs), tuple(a / b for a, b in pairs)
    return Row(what, name, ours, "ms", ratios, beside, Bar(bar))


def _line(pairs: Sequence[tuple[float, ...]], one: str, two: str, bar: float) -> str:
    """Medians, and the ratio with its range."""
    ours, theirs = ([pair[i] for pair in pairs] for i in (0, 1))
    ratios = [a / b for a, b in pairs]
    middle = statistics.median(ratios)
    line = f"{_ms(ours)} {one} {_ms(theirs)} {two}"
    line += f"  {middle:5.2f} x [{min(ratios):.2f} to {max(ratios):.2f}]"
    return f"{line}  at most {bar:.2f}: {'holds' if middle <= bar else 'missed'}"


def _ms(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):7.1f}"


def _images(count: int, channels: int, side: int) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def _backbone() -> nn.Sequential:
    """178,186 parameters: three blocks and two linear layers, for grey images of 40 px."""
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for before, width in ((1, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Flatten(), nn.Linear(1600, 96), nn.ReLU(), nn.Linear(96, 10)]
    return nn.Sequential(*layers).eval()
