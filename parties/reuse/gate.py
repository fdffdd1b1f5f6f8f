"""The adoption gate: twenty checks between an offered model and the firm's patients or clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

import torch
from torch import nn

from parties.backbones import Backbone
from parties.exchange import FedpactError
from parties.reuse.adoption import ALL, Adoption, Check
from parties.reuse.artifact import Artifact, Parcel, collect
from parties.reuse.bounded import is_number, is_text, is_whole
from parties.reuse.card import CARD_FIELDS
from parties.reuse.checks import BLOCK, SKIPPED, WARN, Case, Finding, Receiver, Step, twenty
from parties.reuse.manifest import Manifest

DANGEROUS = (1, 2, 3, 4)
JUDGES = ("probe", "answers")
MOST_REASON = 1000  # characters; names in it are the maker's


@final
@dataclass(frozen=True)
class Gate:
    """A firm's policy for adopting models. A limit of None is no limit.

    Args:
        checks: numbers of the checks that run.
        demanded: checks that may not be skipped for want of a file or of data: they block then.
        warn_only: checks that warn where they would block; not 1 to 4.
        allow_unsigned: an artifact without a signature, or of a firm without a pinned key, is
            warned of and not refused. A wrong signature always is.
        keys: firm -> its public key, as PEM text or as the path of a PEM file.
        max_folder_mb: megabytes of an artifact's files, looked at before anything is read.
        backbone_only: an artifact may leave out the classifier.
        max_norm_ratio: of a layer's norm and the own model's; beyond it a warning.
        golden_tolerance: largest difference of an output on the golden inputs.
        max_parameters, max_model_mb: size of the model.
        max_forward_mflops, max_training_mflops: million operations a case, forward and with the
            way back.
        batch: cases a pass when memory and latency are measured.
        max_inference_mb, max_training_mb: peak megabytes of tensors.
        max_median_ms, max_p95_ms: of a pass, of one case and of a batch.
        latency_repeats: passes that are timed.
        judged_by: "probe": by a linear classifier on its features, which is what a firm gains that
            retrains it; "answers": by its own, which is what a firm gains that uses it as it is.
        probe_labels: labelled cases a class that a probe is fitted on; None: half of them all.
        margin: accuracy that must be gained over the own model.
        confidence: of the interval of that gain.
        max_arm: largest ARM, where the firm measures one.
        max_ece: largest expected calibration error; ece_bins: its bins.
        max_confident_errors: largest share of cases that are wrong with 90 % confidence or more.
        max_drop: largest loss of accuracy under the firm's sensors.
        card_fields: fields of the model card that may not be empty.
        licences: SPDX identifiers that are allowed.
        max_epsilon, max_delta: largest declared privacy loss; None asks for no declaration.
    """

    checks: tuple[int, ...] = ALL
    demanded: tuple[int, ...] = ()
    warn_only: tuple[int, ...] = ()
    allow_unsigned: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)
    max_folder_mb: float = 512.0
    backbone_only: bool = False
    max_norm_ratio: float = 100.0
    golden_tolerance: float = 1e-4
    max_parameters: int | None = 50_000_000
    max_model_mb: float | None = 256.0
    max_forward_mflops: float | None = 10_000.0
    max_training_mflops: float | None = 30_000.0
    batch: int = 32
    max_inference_mb: float | None = 2_000.0
    max_training_mb: float | None = 8_000.0
    max_median_ms: float | None = 500.0
    max_p95_ms: float | None = 1_000.0
    latency_repeats: int = 20
    judged_by: str = "probe"
    probe_labels: int | None = 10
    margin: float = 0.0
    confidence: float = 0.95
    max_arm: float | None = None
    max_ece: float = 0.1
    ece_bins: int = 15
    max_confident_errors: float = 0.05
    max_drop: float = 0.2
    card_fields: tuple[str, ...] = CARD_FIELDS
    licences: tuple[str, ...] = ("Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0")
    max_epsilon: float | None = None
    max_delta: float | None = None

    def __post_init__(self) -> None:
        self._check_lists()
        for name in ("allow_unsigned", "backbone_only"):
            self._legal(name, isinstance(getattr(self, name), bool), "true or false")
        for name in ("batch", "latency_repeats", "ece_bins"):
            self._legal(name, is_whole(getattr(self, name), 1), "a whole number >= 1")
        keyed = isinstance(self.keys, Mapping) and all(
            is_text(k) and isinstance(v, str) and v for k, v in self.keys.items()
        )
        self._legal("keys", keyed, "firm: PEM text or path of a PEM file")
        for name in ("max_folder_mb", "max_norm_ratio", "golden_tolerance"):
            value = getattr(self, name)
            self._legal(name, is_number(value) and value > 0, "a number > 0")
        for name in (
            *("max_parameters", "max_model_mb", "max_forward_mflops", "max_training_mflops"),
            *("max_inference_mb", "max_training_mb", "max_median_ms", "max_p95_ms", "max_arm"),
            *("max_epsilon", "max_delta"),
        ):
            value = getattr(self, name)
            legal = value is None or (is_number(value) and value >= 0)
            self._legal(name, legal, "a number >= 0, or null for no limit")
        for name in ("max_ece", "max_confident_errors", "max_drop"):
            value = getattr(self, name)
            self._legal(name, is_number(value) and 0 <= value <= 1, "a share from 0 to 1")
        self._legal("judged_by", self.judged_by in JUDGES, " or ".join(JUDGES))
        few = self.probe_labels is None or is_whole(self.probe_labels, 1)
        self._legal("probe_labels", few, "a whole number >= 1, or null for half of all cases")
        within = is_number(self.margin) and -1 <= self.margin <= 1
        self._legal("margin", within, "a difference of accuracies, -1 to 1")
        sure = is_number(self.confidence) and 0 < self.confidence < 1
        self._legal("confidence", sure, "a share inside (0, 1)")

    def _check_lists(self) -> None:
        for name in ("checks", "demanded", "warn_only", "card_fields", "licences"):
            value = getattr(self, name)
            self._legal(name, isinstance(value, list | tuple), "a list")
            object.__setattr__(self, name, tuple(value))
        for name in ("checks", "demanded", "warn_only"):
            numbers = getattr(self, name)
            known = all(is_whole(n, 1) and n in ALL for n in numbers)
            self._legal(name, known and len(set(numbers)) == len(numbers), "numbers 1 to 20")
        gone = set(self.demanded) - set(self.checks)
        self._legal("demanded", not gone, f"checks that run (add {sorted(gone)} to gate.checks)")
        soft = set(self.warn_only) & set(DANGEROUS)
        self._legal("warn_only", not soft, "checks from 5 on: 1 to 4 guard the machine")
        named = set(self.card_fields) <= set(CARD_FIELDS)
        self._legal("card_fields", named, f"among {', '.join(CARD_FIELDS)}")
        self._legal("licences", all(is_text(x) for x in self.licences), "SPDX identifiers")

    def _legal(self, name: str, legal: object, rule: str) -> None:
        if not legal:
            raise FedpactError(
                f"gate.{name} is {getattr(self, name)!r:.200}; legal is {rule}. "
                f"Change it with gate.{name}=..."
            )

    def judge(self, offered: str | Path | Parcel | Artifact, receiver: Receiver) -> Adoption:
        """Decide about a model in a folder (a path) or in a message (`Artifact.from_weights`).

        The first block among checks 1 to 4 ends the examination; otherwise all run, but those
        that another block has made pointless. A check that fails to run blocks. Nothing of the
        offered model is executed but tensors, by the module that the firm itself builds.

        Args:
            receiver: the firm's data, model, contracts and memory.

        Returns:
            The decision with all twenty checks. It never raises for what the artifact holds.

        Raises:
            FedpactError: there is no such folder.
        """
        if isinstance(offered, str | Path):
            offered = collect(Path(offered), int(self.max_folder_mb * 1e6))
        case = Case(offered, receiver, self)
        done: dict[int, Check] = {}
        kind = torch.device(receiver.device).type
        others = 0 if kind == "cpu" else torch.get_device_module(kind).device_count()
        with torch.random.fork_rng(devices=range(others), device_type=kind):
            for step in twenty():
                started = time.perf_counter()
                said = self._hold(step, case, done)
                seconds = time.perf_counter() - started
                done[step.number] = Check(
                    step.number,
                    step.name,
                    step.theme,
                    said.status,
                    said.value,
                    said.limit,
                    seconds,
                    said.reason[:MOST_REASON],
                )
        return self._decide(case, tuple(done.values()))

    def _hold(self, step: Step, case: Case, done: Mapping[int, Check]) -> Finding:
        """One check, as the policy has it."""
        stopped = [n for n in DANGEROUS if n in done and done[n].status == BLOCK]
        pointless = [n for n in step.needs if done[n].status == BLOCK]
        for number in (*stopped, *pointless):
            because = f"Not looked at, because check {number} ({done[number].name}) blocks."
            return Finding(SKIPPED, because)
        if step.number not in self.checks:
            return Finding(SKIPPED, "The policy does not ask for this check.")
        # A model that draws at random draws the same, wherever it runs.
        on_cpu = torch.device(case.receiver.device).type == "cpu"
        (torch.default_generator if on_cpu else torch).manual_seed(case.receiver.seed)
        try:
            finding = step.look(case)
        except Exception as fault:  # whatever it is that went wrong, the model is not adopted
            text = (
                str(fault)
                if isinstance(fault, FedpactError)
                else f"{type(fault).__name__}: {fault}"
            )
            finding = Finding(
                BLOCK,
                f"The check could not be held ({text[:300]}); legal is a model that runs on the "
                "firm's own build. Ask its maker, or mend what the firm gave (data, builder).",
            )
        if finding.status == SKIPPED and step.number in self.demanded:
            demand = "The policy demands this check: give what it needs, or ask for the folder."
            return replace(finding, status=BLOCK, reason=f"{finding.reason} {demand}")
        if finding.status == BLOCK and step.number in self.warn_only:
            return replace(finding, status=WARN)
        return finding

    def _decide(self, case: Case, checks: tuple[Check, ...]) -> Adoption:
        blocking = [f"{c.number} {c.name}: {c.reason}" for c in checks if c.status == BLOCK]
        said: Manifest | None = None
        digest: str | None = None
        try:
            said = case.manifest
            if not any(c.status == BLOCK and c.number <= 3 for c in checks):
                digest = case.artifact.digest
        except FedpactError as fault:
            if not blocking:  # the policy asked for no check, and still there is no model
                blocking.append(f"0 reading: {fault}")
        return Adoption(
            decision="refuse" if blocking else "adopt",
            firm=said and said.firm,
            model=said and said.model,
            digest=digest,
            round=said and said.round,
            contract=said and said.contract,
            parent=said and said.parent,
            blocking=tuple(blocking),
            checks=checks,
        )


def backbone_of(manifest: Manifest, kinds: Mapping[str, type[Backbone]]) -> Backbone:
    """The recipe that a manifest names, of these classes and no other code.

    Args:
        kinds: class path as a manifest has it -> the firm's own class.

    Raises:
        FedpactError: it is none of them, its fields are not the class's, or it takes no flat
            features.
    """
    name = manifest.backbone["class"]
    if name not in kinds:
        raise FedpactError(
            f"the backbone {name!r} is not one that the firm builds; legal are "
            f"{', '.join(sorted(kinds))}. Add the class to the firm's own list, or refuse."
        )
    shape = manifest.inputs.shape
    if len(shape) != 1:
        raise FedpactError(
            f"the inputs have the shape {shape}; legal are flat features (d,) here. Flatten "
            "them, or build the module yourself."
        )
    try:
        return kinds[name](**manifest.backbone["fields"])
    except FedpactError:
        raise
    except Exception as fault:  # fields of an enemy's choice make a constructor raise anything
        raise FedpactError(
            f"the backbone {name} cannot be built: {str(fault)[:200]}. Ask its maker which version "
            "of the class was used."
        ) from fault


def built_from(kinds: Mapping[str, type[Backbone]]) -> Callable[[Manifest], nn.Module]:
    """A builder for `Receiver.build` that knows these backbones, and no other code."""

    def build(manifest: Manifest) -> nn.Module:
        backbone = backbone_of(manifest, kinds)
        try:
            return backbone.build(manifest.inputs.shape[0], len(manifest.outputs.classes), 0)
        except (RuntimeError, TypeError, ValueError, OverflowError) as fault:  # sizes past torch's
            raise FedpactError(
                f"the backbone {manifest.backbone['class']} cannot be built with the manifest's "
                f"fields ({str(fault).splitlines()[0][:200]}); legal are sizes of the weights. Ask "
                "its maker for the fields that the model was built with."
            ) from fault

    return build
