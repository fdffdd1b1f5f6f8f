"""Does a canonicalizer remove the shift that ARM sees, and the half turn that it does not see?

Models of clean, upright digits are offered for digits that are turned or noisy, with a profile card
and with a canonicalizer that their maker trained, without labels, on its own upright digits. The
firm judges and retrains each on its images as they come ("plain") and in the pose that the
canonicalizer finds ("canonical"). Digits are seen at 16x16 pixels, 12x12 and a black frame, so that
a turn cuts nothing off.

`cases.csv` has a row a model, shift and view, written as it ends:

    case, model, architecture, seed, shift, view
    arm, floor            ARM (exact) from the profile card of the maker's images, and what it would
                          be if there were no shift
    zero_shot_accuracy    on held-out images, before retraining
    ceiling               best held-out accuracy in `longest` epochs of retraining
    epochs                first quarter epoch at which it is within `margin` of the ceiling
    decision              the judge's: as_is, or after a probe fine_tune or scratch
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from parties.backbones import Backbone
from parties.backbones.cnn import Cnn
from parties.backbones.mlp import Mlp
from parties.canonicalize import Canonicalizer
from parties.canonicalize.groups import Group
from parties.canonicalize.recipe import Canonicalization
from parties.canonicalize.scalar import Scalar
from parties.exchange import Array, FedpactError
from parties.files import write_whole
from parties.reuse import Target
from parties.reuse.adopt import FREE
from parties.reuse.arm import Arm
from parties.reuse.history import History
from parties.reuse.judge import AS_IS, Judge, probed
from parties.reuse.profile import Profile, Source
from parties.training import Training, random_seed
from simulations.campaigns import Campaign
from simulations.campaigns.canonical_arm_table import write_report
from simulations.campaigns.canonical_fashion import one_thread, padded, trained_once
from simulations.campaigns.offered import CLASSES, Parts, check_offers
from simulations.campaigns.retraining import accuracy, curve, first
from simulations.campaigns.spoiled import SHIFTS
from simulations.results import RunFolder

log = logging.getLogger("fedpact")

PLAIN, CANONICAL = "plain", "canonical"
ARCHITECTURES: dict[str, Backbone] = {
    "mlp": Mlp((64, 32)),
    "cnn": Cnn((16, 32)),
    "deep": Cnn((8, 16, 32)),
}
GLYPH, FRAME = 12, 2  # pixels a side of a digit, and around it
UPRIGHT = "upright"  # images as the maker's
LEGAL = (UPRIGHT, *SHIFTS)
COLUMNS = [
    *("case", "model", "architecture", "seed", "shift", "view"),
    *("arm", "floor", "zero_shot_accuracy", "ceiling", "epochs", "decision"),
]


def _any_turn() -> Canonicalization:
    return Canonicalization(Group(16), Scalar(), Training(25, 128, 0.05, 0.9, 1e-4), refine=2)


@final
@dataclass(frozen=True)
class CanonicalArm(Campaign):
    """Measure ARM, retraining and the judge's decision, without and with canonicalization.

    Args:
        judge: decides, without a history.
        models: architecture-seed each; architectures are mlp, cnn and deep. The seed decides the
            digits and the canonicalizer too.
        shifts: upright, or names of `spoiled.SHIFTS`.
        canonicalizer: how its maker trains it.
        longest: epochs of retraining after which the best accuracy is the ceiling.
        margin: accuracy below the ceiling that counts as being there.
        source_epochs: epochs that the offered models were trained.
        batch_size, learning_rate: of plain SGD, in all trainings of models.
    """

    judge: Judge
    models: tuple[str, ...] = tuple(f"{a}-{s}" for a in ARCHITECTURES for s in range(3))
    shifts: tuple[str, ...] = (
        *(UPRIGHT, "rotation_15", "rotation_45", "rotation_90", "rotation_180", "noise_0.3"),
    )
    canonicalizer: Canonicalization = field(default_factory=_any_turn)
    longest: int = 10
    margin: float = 0.05
    source_epochs: int = 40
    batch_size: int = 16
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        models, shifts = check_offers(self.models, self.shifts, LEGAL)
        object.__setattr__(self, "models", models)
        object.__setattr__(self, "shifts", shifts)
        if not self.canonicalizer.shareable:
            raise FedpactError(
                "campaign.canonicalizer has nothing that is trained, so that its maker has nothing "
                "to ship. Use Scalar, Cosine or Classifier, and two poses or more."
            )
        for name in ("longest", "source_epochs"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise FedpactError(
                    f"campaign.{name} is {value!r}; legal is a whole number >= 1. Leave it out "
                    "for the default."
                )
        if not isinstance(self.margin, float) or not 0 <= self.margin < 1:
            raise FedpactError(
                f"campaign.margin is {self.margin!r}; legal is a number from 0 to below 1. Set "
                "campaign.margin=0.05."
            )
        self._training(1, "constant")  # refuses a bad batch size or learning rate

    def _training(self, epochs: int, schedule: str) -> Training:
        return Training(epochs, self.batch_size, self.learning_rate, 0.0, 0.0, schedule)

    # ------------------------------------------------------------------------------ the seam

    def plan(self) -> list[str]:
        return [
            f"{len(self.models)} models x {len(self.shifts)} shifts, plain and canonical; each "
            f"retrained for {self.longest} epochs"
        ]

    def run(self, folder: RunFolder) -> list[str]:
        path = folder.path / "cases.csv"
        text = path.read_text().rpartition("\n")[0] if path.exists() else ""
        done = {row["case"] for row in csv.DictReader(io.StringIO(text))}
        # A last row that was cut off is dropped.
        write_whole(path, ((text or ",".join(COLUMNS)) + "\n").encode())
        with path.open("a", newline="", buffering=1) as file, one_thread():
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            for model in self.models:
                for row in self._judged(model, done, folder):
                    table.writerow(row)
        return write_report(folder, self.judge.required)

    # ------------------------------------------------------------------------------ its parts

    def _judged(self, name: str, done: set[str], folder: RunFolder) -> Iterator[Mapping[str, Any]]:
        """Train one model, then judge and retrain it where that is not done, a row each."""
        architecture, _, number = name.partition("-")
        seed = int(number)
        left = [
            (shift, view, f"{name}-{shift}-{view}")
            for shift in self.shifts
            for view in (PLAIN, CANONICAL)
            if f"{name}-{shift}-{view}" not in done
        ]
        if not left:
            return
        parts = Parts.of(seed)
        features, labels = framed(parts.source[0]), parts.source[1]
        model = ARCHITECTURES[architecture].build(features.shape[1], CLASSES, seed)
        training = self._training(self.source_epochs, "linear")
        draw = random_seed(seed, "source", architecture)
        trained_once(
            model,
            lambda: training.fit(model, features, labels, draw),
            folder.models / f"{name}.safetensors",
        )
        card = Profile.of(model, features, labels, np.random.default_rng([seed, 1]))
        shipped = self._shipped(seed, features, folder)
        for shift, view, case in left:
            seen, judged = (
                self._seen(part, shift, view, seed, shipped)
                for part in (parts.firm, parts.held_out)
            )
            own, truth = parts.firm[2], parts.held_out[2]
            said = Arm().score(model, Source(card), Target(seen), np.random.default_rng(0))
            decision = self._decision(model, Source(card), seen, own, random_seed(seed, case))
            retraining = self._training(1, "constant")
            fit = random_seed("retraining", case)
            kept, _ = curve(
                retraining, deepcopy(model), (seen, own), (judged, truth), self.longest, fit
            )
            epochs = first(kept >= kept.max() - self.margin - 1e-9)
            log.info("%s: ARM %.3f, %s epochs, %s", case, said.value, epochs, decision)
            yield {
                "case": case,
                "model": name,
                "architecture": architecture,
                "seed": seed,
                "shift": shift,
                "view": view,
                "arm": said.value,
                "floor": said.floor,
                "zero_shot_accuracy": kept[0],
                "ceiling": kept.max(),
                "epochs": epochs,
                "decision": decision,
            }

    def _shipped(self, seed: int, features: Array, folder: RunFolder) -> Canonicalizer:
        """The canonicalizer of a maker, trained without labels on its upright digits."""
        draw = random_seed(seed, "canonicalizer")
        canonicalizer = self.canonicalizer.build(features.shape[1], draw)
        trained_once(
            canonicalizer,
            lambda: self.canonicalizer.fit(canonicalizer, features, draw),
            folder.models / f"canonicalizer_{seed}.safetensors",
        )
        return canonicalizer

    def _seen(
        self,
        part: tuple[Array, Array, Array],
        shift: str,
        view: str,
        seed: int,
        canonicalizer: Canonicalizer,
    ) -> Array:
        """The images of a part as a firm's camera shows them, or as the model then sees them."""
        images = framed(part[1])
        if shift != UPRIGHT:
            images = SHIFTS[shift].see(images, part[0], seed)
        return images if view == PLAIN else self.canonicalizer.upright(canonicalizer, images)

    def _decision(
        self, model: nn.Module, source: Source, seen: Array, own: Array, seed: int
    ) -> str:
        """What a firm without a history decides; a fifth of its images are kept back to judge by.

        As in `parties.reuse.adopt`: a probe is a quarter of an epoch.
        """
        cut = len(own) - len(own) // 5
        fit, kept = Target(seen[:cut], own[:cut]), (seen[cut:], own[cut:])
        rng = np.random.default_rng(seed)
        told = self.judge.judge(model, source, fit, History(), FREE, rng)
        if told.decision == AS_IS:
            return AS_IS
        training, tried = self._training(1, "constant"), deepcopy(model)
        before = training.loss(tried, *kept)
        rows = rng.permutation(cut)[: max(1, cut // 4)]
        training.fit(tried, seen[rows], own[rows], seed)
        after = training.loss(tried, *kept)
        return probed(
            before, after, accuracy(tried, *kept), self.judge.required, self.judge.least_gain
        )


def framed(features: Array) -> Array:
    """Digits of 8x8 pixels, (n, 64), at 12x12 in a black frame of 2, (n, 256)."""
    images = torch.from_numpy(features).view(-1, 1, 8, 8)
    larger = functional.interpolate(images, (GLYPH, GLYPH), mode="bilinear", align_corners=False)
    return padded(larger.flatten(1).numpy(), FRAME)
