"""`python -m simulations.judge`: would reusing this model pay, on this data?

    python -m simulations.judge model=MODEL data=DATA [key=value ...]
    python -m simulations.judge calibrate=history.csv

model=      a folder with weights.safetensors and manifest.json, or a safetensors file; then name
            its backbone too: backbone=mlp backbone.widths=[64] (of a cnn also features=784)
data=       a .csv file (label=COLUMN), an .npz file (features, labels), or a folder with a folder
            of images a class
card=       the profile card of the data that the model was trained on (a safetensors file)
source=     those data themselves, where they are at hand
history=    finished cases (a csv file), from which epochs and accuracy are forecast
outcome=    measure: retrain it and train anew, here and now, and add the case to the history
case=, kind=  names of that case and of its kind of shift
gate=       fast or full: hold the adoption gate's checks on the folder first; a model that does not
            pass is refused (exit status 1). gate.keys.alpha=FILE pins alpha's public key
ledger=     a file in which the gate remembers what it saw and adopted
out=        a new folder for judgement.json;  format=json prints it
calibrate=  a history: how good are forecasts from it, and what would they have saved?

Other words change the configuration, as for `fedpact`: reuse.required=0.9 training.batch_size=32
energy.cpu_watts=15 (`fedpact --cfg job` lists all).
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import hydra
import numpy as np
import torch
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from parties.energy import Meter
from parties.exchange import FedpactError
from parties.reuse import ReuseMeasure, Target
from parties.reuse.calibration import calibrate
from parties.reuse.gate import Gate
from parties.reuse.history import History
from parties.reuse.judge import Epoch, Judge
from parties.reuse.profile import Profile, Source
from parties.training import Training, random_seed
from simulations.build import build
from simulations.campaigns.retraining import curve, first
from simulations.judge import words
from simulations.judge.data import read
from simulations.judge.gating import examine, lines
from simulations.judge.model import Offered, read_model
from simulations.mistakes import explain
from simulations.results import write_whole

OWN = (
    *("model", "features", "data", "label", "card", "source", "history", "outcome", "case", "kind"),
    *("out", "format", "calibrate", "seed", "ledger"),
)
NUMBERS = ("features", "seed")
TIMED = 512  # examples on which an epoch is timed
LONGEST = 20  # epochs of retraining after which the best accuracy is the ceiling
MARGIN = 0.02  # below the ceiling: there
JUDGED = 0.25  # share of the data by which a retraining is judged


@final
@dataclass(frozen=True)
class Parts:
    """What the configuration describes."""

    judge: Judge
    training: Training
    meter: Meter
    gate: Gate
    backbone: dict[str, Any] | None


def _parts(overrides: list[str]) -> Parts:
    named = any(w.split("=")[0].split(".")[0] == "backbone" for w in overrides)
    with hydra.initialize_config_module("conf", version_base="1.3"):
        whole = hydra.compose("config", overrides)
    plain: Any = OmegaConf.to_container(whole, resolve=True)
    return Parts(
        build(plain["reuse"]),
        build(plain["training"]),
        build(plain["energy"]),
        build(plain["gate"]),
        plain["backbone"] if named else None,
    )


def _words(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    own, overrides = {}, []
    for word in arguments:
        key, sign, value = word.partition("=")
        if not sign:
            raise FedpactError(f"{word!r} is no key=value. See python -m simulations.judge --help.")
        if key in OWN:
            own[key] = value
        else:
            overrides.append(word)
    if "calibrate" not in own:
        for key in ("model", "data"):
            if key not in own:
                close = difflib.get_close_matches(key, [w.split("=")[0] for w in overrides], 1)
                hint = f" (was it meant by {close[0]!r}?)" if close else ""
                raise FedpactError(f"{key}=... is missing{hint}. See --help.")
    for key in NUMBERS:
        if not own.get(key, "0").isdecimal():
            raise FedpactError(f"{key} is {own[key]!r}; legal is a whole number >= 0.")
    for key, legal in (("format", ("text", "json")), ("outcome", ("measure",))):
        if own.get(key, legal[0]) not in legal:
            raise FedpactError(f"{key} is {own[key]!r}; legal: {', '.join(legal)}.")
    return own, overrides


def _source(own: dict[str, str], offered: Offered, module: nn.Module, seed: int) -> Source:
    rng = np.random.default_rng([seed, 1])
    if "source" in own:
        known = read(Path(own["source"]), own.get("label"), offered.inputs, offered.names)
        card = Profile.of(module, known.features, known.labels, rng)
        return Source(card, known.features, known.labels)
    return Source(Profile.load(Path(own["card"])) if "card" in own else None)


def _able(judge: Judge, source: Source, target: Target) -> tuple[Judge, list[str]]:
    """The judge with the measures that can be taken, and the names of the others."""

    def lacks(measure: ReuseMeasure) -> bool:
        no_card = measure.needs_source and source.profile is None
        return no_card or (measure.needs_labels and target.labels is None)

    able = [measure for measure in judge.measures if not lacks(measure)]
    left_out = [measure.name for measure in judge.measures if lacks(measure)]
    if not able:
        raise FedpactError(
            f"None of the measures ({', '.join(left_out)}) can be taken without labels and without "
            "a profile card. Give label=COLUMN, card=FILE or source=FILE."
        )
    return replace(judge, measures=tuple(able)), left_out


def _epoch(parts: Parts, module: nn.Module, target: Target, seed: int) -> Epoch:
    """What an epoch takes, timed on a part of the data."""
    n = len(target.features)
    some = min(n, TIMED)
    labels = target.labels if target.labels is not None else np.zeros(n, np.int64)
    copy = deepcopy(module)
    read_meter = parts.meter.start(parts.training.torch_device)
    once = replace(parts.training, stopping=build({"_target_": "parties.stopping.never.Never"}))
    once.fit(copy, target.features[:some], labels[:some], seed, 1)
    spent = read_meter()
    share = n / some
    whole = replace(
        spent,
        cpu_seconds=share * spent.cpu_seconds,
        gpu_seconds=share * spent.gpu_seconds,
        joules=share * spent.joules,
        kg_co2e=share * spent.kg_co2e,
    )
    return Epoch(whole, parts.meter.money(whole))


def _judge(own: dict[str, str], overrides: list[str]) -> tuple[list[str], bool]:
    """What to print, and whether the gate refused the model."""
    parts, seed = _parts(overrides), int(own.get("seed", "0"))
    torch.set_num_threads(1)
    offered = read_model(Path(own["model"]), parts.backbone, int(own.get("features", "0")))
    target = read(Path(own["data"]), own.get("label"), offered.inputs, offered.names)
    module = offered.module().to(parts.training.torch_device)
    shown: list[str] = []
    known: dict[str, Any] = {}
    if parts.gate.checks:
        ledger = Path(own["ledger"]) if "ledger" in own else None
        device = str(parts.training.torch_device)
        adoption = examine(parts.gate, Path(own["model"]), offered, target, ledger, device)
        known["adoption"] = json.loads(adoption.to_json())
        shown = [*lines(adoption), ""]
        if "out" in own:
            write_whole(Path(own["out"]) / "adoption.json", adoption.to_json().encode())
        if not adoption.adopted:
            return [json.dumps(known, indent=2)] if own.get("format") == "json" else shown, True
    source = _source(own, offered, module, seed)
    judge, left_out = _able(parts.judge, source, target)
    place = own.get("history") or judge.history
    history = History.load(place) if place else History()
    epoch = _epoch(parts, module, target, seed)
    rng = np.random.default_rng(seed)
    told = judge.judge(module, source, target, history, epoch, rng)
    known |= words.as_json(told, epoch.spent.known)
    shown += words.lines(told, {m.name: m for m in judge.measures}, left_out, epoch.spent.known)
    if "outcome" in own:
        row = _outcome(own, parts, offered, target, seed)
        row |= {name: score.value for name, score in told.scores.items()}
        if not place:
            raise FedpactError("outcome=measure adds to a history; name its file: history=FILE.")
        history.with_case(row).save(place)
        shown += ["", f"measured: {row['epochs']} epochs to {row['ceiling']:.3f}; added to {place}"]
        known["outcome"] = row
    if "out" in own:
        folder = Path(own["out"])
        text = json.dumps(known, indent=2) + "\n"
        write_whole(folder / "judgement.json", text.encode())
        shown.append(str(folder / "judgement.json"))
    return [json.dumps(known, indent=2)] if own.get("format") == "json" else shown, False


def _outcome(
    own: dict[str, str], parts: Parts, offered: Offered, target: Target, seed: int
) -> dict[str, Any]:
    """Retrain the model and train a new one, and say what that took."""
    if target.labels is None:
        raise FedpactError(
            "outcome=measure trains, and the data have no labels. Give label=COLUMN."
        )
    order = np.random.default_rng([seed, 2]).permutation(len(target.features))
    cut = max(1, round(JUDGED * len(order)))
    judged, fit = (
        (target.features[rows], target.labels[rows]) for rows in (order[:cut], order[cut:])
    )
    device = parts.training.torch_device
    kept, fresh = (
        curve(parts.training, start.to(device), fit, judged, LONGEST, random_seed(seed, "outcome"))[
            0
        ]
        for start in (offered.module(), offered.fresh(random_seed(seed, "new")))
    )
    ceiling = float(kept.max())
    scratch = first(fresh >= ceiling - MARGIN)
    return {
        "case": own.get("case") or f"{Path(own['model']).name}-{Path(own['data']).stem}",
        "kind": own.get("kind") or Path(own["data"]).stem,
        "epochs": first(kept >= ceiling - MARGIN),
        "scratch_epochs": float("nan") if scratch is None else scratch,
        "ceiling": ceiling,
        "zero_shot_accuracy": float(kept[0]),
        "probe_accuracy": float(kept[1]),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 where the gate refuses the model, 2 for a mistake that a person can mend."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    try:
        own, overrides = _words(given)
        refused = False
        if "calibrate" in own:
            history = History.load(own["calibrate"])
            shown = list(words.calibrated(calibrate(_parts(overrides).judge, history, LONGEST)))
        else:
            shown, refused = _judge(own, overrides)
    except FedpactError as fault:
        sys.stderr.write(f"fedpact: {fault}\n")
        return 2
    except (HydraException, OmegaConfBaseException) as fault:
        sys.stderr.write(f"fedpact: {explain(fault)}\n")
        return 2
    print("\n".join(shown))
    return int(refused)


if __name__ == "__main__":
    sys.exit(main())
