"""Which layer of which network that others trained would a firm reuse, on ten labels a class?"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd

from parties.backbones.pretrained import Pretrained, check_side, embeddings, untrained
from parties.exchange import Array, FedpactError
from parties.files import write_whole
from parties.reuse.leep import leep
from simulations.backbones.sources import BACKBONES
from simulations.backbones.store import arrays_of, blank, cache_at, network_of
from simulations.campaigns import Campaign
from simulations.campaigns.backbones_data import DATA, Draws, Images, drawn, images_of
from simulations.campaigns.backbones_judged import PIXELS, judged, told
from simulations.campaigns.backbones_probe import FOLDS, Margin, hits, hits_left_out
from simulations.campaigns.backbones_report import write_pages
from simulations.campaigns.backbones_scores import SCORES
from simulations.results import RunFolder

log = logging.getLogger("fedpact")
UNIT = ["data", "backbone", "weights"]
SETTLE = 64  # images that a random copy's batch normalizations take their statistics from


@final
@dataclass(frozen=True)
class ReuseBackbones(Campaign):
    """Reuse of frozen networks at a few labels a class: what is forecast, and what comes out.

    For every data set, network, stage and draw: features of the labelled images and of the held-out
    ones, the accuracy of a linear probe on the latter, and beside it the pixels themselves and a
    random copy of the network. Scores read the labelled images only.

    The forecast, chosen before any accuracy on held-out images was looked at: the accuracy of the
    same probe on the labelled draw, cross-validated in 5 folds. The judge offers a firm the stage
    with the highest forecast (of equals the one with fewer numbers) and it reuses that if the
    forecast beats the pixels' by more than 1.645 standard errors, paired over the labelled images.
    All other scores are shown beside it and decide nothing.

    Args:
        backbones: networks that were fetched, among squeezenet, mobilenet, efficientnet_lite.
        data: data sets, among fashion_mnist, digits, emoji_google, emoji_twitter.
        side: pixels a side that the networks see.
        shots: labelled images a class and draw, FOLDS or more.
        draws: how often labelled images are drawn.
        test: held-out images, the same in every draw.
        seed: decides the draws and the random copies.
        fetched: True to judge the fetched networks, with random copies beside them; False to judge
            random copies only, which needs no file.
        cache: folder of what was fetched; None for $FEDPACT_CACHE, else ~/.cache/fedpact/backbones.
        fashion: folder of Fashion-MNIST's four files.
    """

    backbones: tuple[str, ...] = BACKBONES
    data: tuple[str, ...] = tuple(DATA)
    side: int = 96
    shots: int = 10
    draws: int = 5
    test: int = 500
    seed: int = 0
    fetched: bool = True
    cache: str | None = None
    fashion: str = "/usr/share/datasets/fashion-mnist"

    def __post_init__(self) -> None:
        for name, legal in (("backbones", BACKBONES), ("data", tuple(DATA))):
            chosen = tuple(getattr(self, name))
            object.__setattr__(self, name, chosen)
            if not chosen or len({*chosen}) < len(chosen) or {*chosen} - {*legal}:
                raise FedpactError(
                    f"campaign.{name} is {list(chosen)}; legal are different names among "
                    f"{', '.join(legal)}. Write campaign.{name}=[{legal[0]}]."
                )
        check_side(self.side)
        for name, least in (("shots", FOLDS), ("draws", 2), ("test", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise FedpactError(
                    f"campaign.{name} is {value!r}; legal is a whole number >= {least}. Set "
                    f"campaign.{name}={max(least, 5)}."
                )

    def plan(self) -> list[str]:
        if self.fetched:
            for name in self.backbones:
                arrays_of(name, self._cache)
        images = sum(len(draws.everything) for _, _, draws in self._sets())
        stages = sum(len(blank(name).stages) for name in self.backbones)
        passes = len(self._units()) - 1
        return [
            f"{len(self.data)} data sets; {len(self.backbones)} networks with {stages} stages, "
            f"{'fetched ones and random copies' if self.fetched else 'random'}; the pixels",
            f"{self.draws} draws of {self.shots} labels a class, {self.test} images to test on",
            f"{images * passes:,} images through a network at {self.side}x{self.side}",
        ]

    def run(self, folder: RunFolder) -> list[str]:
        path = folder.path / "rows.csv"
        rows = pd.read_csv(path) if path.exists() else pd.DataFrame()
        there = {tuple(unit) for unit in rows[UNIT].to_numpy()} if len(rows) else set()
        for name, images, draws in self._sets():
            shown = images.shown(draws.everything)
            for backbone, kind in self._units():
                if (
                    name,
                    backbone,
                    kind,
                ) in there:  # a unit's rows are on disk together or not at all
                    continue
                started = time.process_time()
                new = pd.DataFrame(self._measured(backbone, kind, shown, images, draws))
                for column, value in zip(reversed(UNIT), (kind, backbone, name), strict=True):
                    new.insert(0, column, value)
                rows = pd.concat([rows, new]) if len(rows) else new
                write_whole(path, rows.to_csv(index=False).encode())
                log.info(
                    "%s, %s %s: %.1f CPU s", name, kind, backbone, time.process_time() - started
                )
        found = judged(rows, self.offered, self.seed)
        for table, content in found.tables.items():
            write_whole(folder.path / f"{table}.csv", content.to_csv(index=False).encode())
        write_pages(found, folder)
        return [*told(found), f"Report   {folder.path / 'report.html'}"]

    @property
    def offered(self) -> str:
        """Which weights the judge chooses among."""
        return "pretrained" if self.fetched else "untrained"

    @property
    def _cache(self) -> Path:
        return cache_at(self.cache)

    def _units(self) -> list[tuple[str, str]]:
        kinds = ("pretrained", "untrained") if self.fetched else ("untrained",)
        return [(PIXELS, "none"), *((b, kind) for b in self.backbones for kind in kinds)]

    def _sets(self) -> Iterator[tuple[str, Images, Draws]]:
        for name in self.data:
            images = images_of(name, self._cache, self.fashion)
            yield name, images, drawn(images, name, self.shots, self.draws, self.test, self.seed)

    def _network(self, backbone: str, kind: str, shown: Array) -> Pretrained:
        if kind == "pretrained":
            return network_of(backbone, self._cache)
        network = blank(backbone)
        return untrained(network, network.prepare(shown[:SETTLE], self.side), self.seed)

    def _measured(
        self, backbone: str, kind: str, shown: Array, images: Images, draws: Draws
    ) -> Iterator[dict[str, Any]]:
        """A row a stage and draw; `shown` are the pixels of `draws.everything`."""
        pixels = shown.reshape(len(shown), -1)
        features, said = {PIXELS: pixels}, None
        if backbone != PIXELS:
            features, said = embeddings(self._network(backbone, kind, shown), shown, self.side)
        tests = np.searchsorted(draws.everything, draws.tests)
        truth = images.labels[draws.tests]
        for draw, rows in enumerate(draws.labelled):
            here, labels = np.searchsorted(draws.everything, rows), images.labels[rows]
            own = hits_left_out(pixels[here], labels, self.seed + draw)
            for stage, seen in features.items():
                started = time.process_time()
                ours = hits_left_out(seen[here], labels, self.seed + draw)
                margin = Margin.of(ours, own)
                last = said is not None and stage == list(features)[-1]
                yield {
                    "stage": stage,
                    "draw": draw,
                    "numbers": seen.shape[1],
                    "accuracy": float(hits(seen[here], labels, seen[tests], truth).mean()),
                    "forecast": float(ours.mean()),
                    "margin": margin.mean,
                    "margin_error": margin.error,
                    **{name: score(seen[here], labels) for name, score in SCORES.items()},
                    "leep": leep(said[here], labels) if said is not None and last else np.nan,
                    "cpu_seconds": round(time.process_time() - started, 4),
                }
