"""The twenty checks, cheapest and most dangerous first: what each looks at, and what it needs.

A check is a function `Case -> Finding`. It blocks, or warns, with a reason for the firm's engineer:
what is wrong, what is legal, what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import nn

from parties.exchange import Array, FedpactError
from parties.reuse.artifact import Artifact, Parcel
from parties.reuse.manifest import Inputs, Manifest

if TYPE_CHECKING:
    from parties.reuse.gate import Gate
    from parties.reuse.ledger import Ledger

PASS, WARN, BLOCK, SKIPPED = "pass", "warn", "block", "skipped"
STATES = (PASS, WARN, BLOCK, SKIPPED)
Number = float | int | str | None
Value = Number | Mapping[str, Number]
Kind = tuple[tuple[int, ...], str]


@final
@dataclass(frozen=True)
class Finding:
    """What a check says: its state, why, what it measured and what was legal."""

    status: str = PASS
    reason: str = ""
    value: Value = None
    limit: Value = None


def judged(problem: str, value: Value = None, limit: Value = None) -> Finding:
    """A block with this reason, or a pass where there is none."""
    return Finding(BLOCK if problem else PASS, problem, value, limit)


def skipped(reason: str) -> Finding:
    """It could not be looked at."""
    return Finding(SKIPPED, reason)


@final
@dataclass(frozen=True)
class Receiver:
    """What the firm that is to adopt a model knows and has. All of it stays with the firm.

    Args:
        build: manifest -> the untrained module, by the firm's own code (`built_from`).
        inputs: what its data look like.
        classes: its ordered class names.
        features, labels: own labelled cases (n, ...) float32 and (n,) int64, which neither its own
            nor the offered model was trained on; None where it has none.
        own: its own model, logits from features as they come (where it wants them turned upright,
            it does so itself), on the same device; it is left in eval mode.
        mapping: the maker's class name -> the firm's, where they differ.
        transforms: name -> what its sensors do to features; None: the four turns of square images.
        canonicalize: features -> features turned upright, where it does that.
        arm: (model, features) -> retraining cost, a number that is the smaller the better.
        ledger: what it has adopted and seen before.
        sender: who handed the model over, where the transport knows.
        contract: id of the contract under which it would adopt.
        seed: decides which of its cases fit the probe and which test it.
        device: where the offered model is run.
    """

    build: Callable[[Manifest], nn.Module]
    inputs: Inputs
    classes: tuple[str, ...]
    features: Array | None = None
    labels: Array | None = None
    own: nn.Module | None = None
    mapping: Mapping[str, str] = field(default_factory=dict)
    transforms: Mapping[str, Callable[[Array], Array]] | None = None
    canonicalize: Callable[[Array], Array] | None = None
    arm: Callable[[nn.Module, Array], float] | None = None
    ledger: Ledger | None = None
    sender: str | None = None
    contract: str | None = None
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        rows = None if self.features is None else len(self.features)
        if self.features is not None and self.features.shape[1:] != self.inputs.shape:
            raise FedpactError(
                f"the firm's cases have the shape {self.features.shape[1:]}, its input contract "
                f"says {self.inputs.shape}; both must be the same. Correct one."
            )
        if self.labels is not None and len(self.labels) != rows:
            raise FedpactError(
                f"the firm gives {len(self.labels)} labels for {rows or 'no'} cases; legal is one "
                "a case. Give both or neither."
            )


@final
class Case:
    """One model under examination; what several checks need is worked out once."""

    def __init__(self, offered: Parcel | Artifact, receiver: Receiver, gate: Gate) -> None:
        self.parcel = offered if isinstance(offered, Parcel) else None
        self._artifact = offered if isinstance(offered, Artifact) else None
        self.receiver, self.gate = receiver, gate

    @cached_property
    def manifest(self) -> Manifest:
        return self.artifact.manifest if self.parcel is None else self.parcel.manifest()

    @cached_property
    def artifact(self) -> Artifact:
        if self._artifact is not None:
            return self._artifact
        assert self.parcel is not None
        return self.parcel.open()

    @cached_property
    def missing_head(self) -> tuple[str, ...]:
        """Tensors of the classifier that the artifact leaves out, where it may."""
        module = self._untrained("meta")
        names = [k for k, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        missing = sorted(set(module.state_dict()) - set(self.artifact.weights))
        head = f"{names[-1]}." if names else "."
        legal = self.gate.backbone_only and all(name.startswith(head) for name in missing)
        return tuple(missing) if legal else ()

    @cached_property
    def module(self) -> nn.Module:
        """The offered model, in eval mode."""
        if wrong := [name for name in self.misfits() if name not in self.missing_head]:
            raise FedpactError(
                f"tensor {wrong[0]!r} does not fit the firm's own build. See check 4."
            )
        module = self.untrained()
        state = {k: torch.from_numpy(np.array(v)) for k, v in self.artifact.weights.items()}
        module.load_state_dict(state, strict=not self.missing_head)
        return module.to(self.receiver.device).eval()

    def misfits(self) -> dict[str, tuple[Kind | None, Kind | None]]:
        """Tensor -> (shape, type) that is given and that the firm's own build has, if unequal.

        Built without memory: what an enemy declares may be too large for any.
        """
        state = self._untrained("meta").state_dict()
        built = {k: (tuple(v.shape), str(v.dtype).split(".")[-1]) for k, v in state.items()}
        given = {k: (v.shape, v.dtype.name) for k, v in self.artifact.weights.items()}
        names = sorted({*built, *given})
        return {k: (given.get(k), built.get(k)) for k in names if given.get(k) != built.get(k)}

    def untrained(self) -> nn.Module:
        """A copy of the architecture as it is before training."""
        return self._untrained("cpu").to(self.receiver.device)

    def _untrained(self, device: str) -> nn.Module:
        with torch.device(device):
            return self.receiver.build(self.manifest)

    def tensor(self, features: Array) -> torch.Tensor:
        """Features where the model is."""
        rows = np.ascontiguousarray(features, np.float32)
        return torch.from_numpy(rows).to(self.receiver.device)

    def run(self, features: Array, module: nn.Module | None = None) -> Array:
        """What a model (the offered one) makes of features, float64."""
        model = self.module if module is None else module
        with torch.inference_mode():
            parts = [model(part) for part in torch.split(self.tensor(features), 256)]
        made: Array = torch.cat(parts).double().cpu().numpy()
        return made

    def batch(self, rows: int) -> Array:
        """Some cases of the right shape: the firm's, the golden ones, or zeros."""
        golden = self.artifact.golden
        some = self.receiver.features
        if some is None:
            some = np.zeros((1, *self.manifest.inputs.shape), np.float32)
            some = some if golden is None else golden.inputs
        return np.resize(some, (rows, *some.shape[1:])).astype(np.float32)

    @property
    def labelled(self) -> tuple[Array, Array] | None:
        """The firm's cases as it would show them to the model, and their labels."""
        firm = self.receiver
        if firm.features is None or firm.labels is None:
            return None
        return self.upright(firm.features), firm.labels

    def upright(self, features: Array) -> Array:
        """Canonicalized, where the firm does that."""
        turn = self.receiver.canonicalize
        return features if turn is None else turn(features)

    def probabilities(self, features: Array) -> Array:
        """(n, classes) in the order of the firm's classes."""
        made = self.run(features)
        if self.manifest.outputs.kind == "logits":
            made = np.exp(made - made.max(1, keepdims=True))
            made = made / made.sum(1, keepdims=True)
        order = self.columns()
        if order is None:
            raise FedpactError("its classes are not the firm's. Give a mapping of class names.")
        chosen: Array = made[:, order]
        return chosen

    def columns(self) -> list[int] | None:
        """Which of its outputs is each of the firm's classes; None where one has none."""
        theirs = self.manifest.outputs.classes
        names = [self.receiver.mapping.get(name, name) for name in theirs]
        ours = self.receiver.classes
        if len(set(names)) < len(names) or not set(ours) <= set(names):
            return None
        if not self.receiver.mapping and theirs != ours:
            return None
        return [names.index(name) for name in ours]


@final
@dataclass(frozen=True)
class Step:
    """One of the twenty: its number, name and theme, which blocks make it pointless, the check."""

    number: int
    name: str
    theme: str
    needs: tuple[int, ...]
    look: Callable[[Case], Finding]


def twenty() -> tuple[Step, ...]:
    """The checks in their order."""
    from parties.reuse.checks import cost, files, model, papers, quality

    runs = (5,)  # what is broken need not be run
    fits = (5, 6)
    named = (5, 6, 7)
    rows: tuple[tuple[str, str, tuple[int, ...], Any], ...] = (
        ("files", "usage", (), files.files),
        ("signature", "documentation", (), files.signature),
        ("no code", "environment", (), files.no_code),
        ("architecture", "usage", (), model.architecture),
        ("weights", "performance", (), model.weights),
        ("input contract", "usage", runs, model.input_contract),
        ("output contract", "usage", (), model.output_contract),
        ("repeatable", "usage", runs, model.repeatable),
        ("software", "environment", (), model.software),
        ("portability", "environment", runs, model.portability),
        ("compute", "hardware", (), cost.compute),
        ("memory", "hardware", (), cost.memory),
        ("latency", "hardware", (), cost.latency),
        ("quality", "performance", fits, quality.probe),
        ("reliability", "output quality", named, quality.reliability),
        ("robustness", "output quality", named, quality.robustness),
        ("documentation", "documentation", (), papers.documentation),
        ("licence", "licence", (), papers.licence),
        ("version", "version hygiene", (), papers.version),
        ("privacy", "privacy", (), papers.privacy),
    )
    return tuple(Step(n, *row) for n, row in enumerate(rows, 1))
