"""`python -m simulations.judge`: would reusing this model pay, on this data?

    python -m simulations.judge model=MODEL data=DATA [key=value ...]
    python -m simulations.judge calibrate=history.csv

model=      a safetensors file; then name its backbone too: backbone=mlp backbone.widths=[64] (of a
            cnn also features=784). Or an artifact's folder, whose manifest names the backbone
data=       a .csv file (label=COLUMN), an .npz file (features, labels), or a folder with a folder
            of images a class
classes=    [a,b,c]: names of the model's classes, in order, where data have names and no manifest
            says which they are; other: the data's classes are not the model's
card=       the profile card of the data that the model was trained on (a safetensors file)
source=     those data themselves, where they are at hand
history=    finished cases (a csv file), from which epochs and accuracy are forecast
outcome=    measure: retrain it and train anew, here and now, and add the case to the history
case=, kind=  names of that case and of its kind of shift
out=        a new folder for judgement.json;  format=json prints it
calibrate=  a history: how good are forecasts from it, and what would they have saved?

gate=       fast or full: hold the adoption gate's checks on the folder first, those of its origin
            before anything else; a model that does not pass is refused (exit status 1)
gate.keys.FIRM=  a file: pins that firm's public key
ledger=     a file in which the gate remembers what it saw and adopted
inputs.low=, inputs.high=, inputs.channels=, inputs.mean=, inputs.std=, inputs.group=
            the firm's own contract of inputs, which the artifact must match; what is not stated is
            taken as the maker declares it, if the data are inside the declared range
own=        the firm's own model (a folder, or a file of the backbone that backbone= names), which
            the offered one is compared with

Other words change the configuration, as for `fedpact`: reuse.required=0.9 training.batch_size=32
energy.cpu_watts=15 (`fedpact --cfg job` lists all).
"""

from __future__ import annotations

import json
import os
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
from parties.exchange import Array, FedpactError
from parties.files import write_whole
from parties.reuse import ReuseMeasure, Target
from parties.reuse.adoption import Adoption
from parties.reuse.arm import Arm
from parties.reuse.artifact import Parcel, collect
from parties.reuse.calibration import calibrate
from parties.reuse.checks import Receiver
from parties.reuse.gate import Gate, built_from
from parties.reuse.history import History
from parties.reuse.judge import Epoch, Judge
from parties.reuse.ledger import Ledger, load, save
from parties.reuse.manifest import Manifest
from parties.reuse.profile import Profile, Source
from parties.reuse.resque import Resque
from parties.reuse.texts import to_text
from parties.reuse.zero_shot import ZeroShot
from parties.stopping.never import Never
from parties.training import Training
from simulations.build import build
from simulations.judge import gating, outcome, words
from simulations.judge.asked import OWN, Asked, parse
from simulations.judge.data import Shape, read
from simulations.judge.model import kinds, of_artifact, read_model
from simulations.mistakes import explain

TIMED = 512  # examples on which an epoch is timed
SAME_CLASSES = (ZeroShot, Resque)  # measures to which a class of the data is one of the model


@final
@dataclass(frozen=True)
class Parts:
    """What the configuration describes."""

    judge: Judge
    training: Training
    meter: Meter
    gate: Gate
    backbone: dict[str, Any] | None


@final
@dataclass(frozen=True)
class Data:
    """What the firm brings: its own cases, and what it knows of those the model was trained on."""

    target: Target
    source: Target | None
    card: Profile | None

    def known(self, module: nn.Module, seed: int) -> Source:
        """What the measures are told of the source's data."""
        if self.source is None:
            return Source(self.card)
        features, labels = self.source.features, self.source.labels
        card = Profile.of(module, features, labels, np.random.default_rng([seed, 1]))
        return Source(card, features, labels)


def _parts(asked: Asked) -> Parts:
    named = any(w.split("=")[0].split(".")[0] == "backbone" for w in asked.overrides)
    with hydra.initialize_config_module("conf", version_base="1.3"):
        whole = hydra.compose("config", list(asked.overrides))
    plain: Any = OmegaConf.to_container(whole, resolve=True)
    gate = build(plain["gate"])
    return Parts(
        build(plain["reuse"]),
        replace(build(plain["training"]), stopping=Never()),  # an epoch is timed, or a few measured
        build(plain["energy"]),
        replace(gate, keys={**gate.keys, **asked.keys}),
        plain["backbone"] if named else None,
    )


# ---------------------------------------------------------------------- before anything is read


def _check(asked: Asked, parts: Parts) -> None:
    """Refuse what would fail late, or change nothing."""
    own = asked.own
    if parts.gate.checks:
        if Path(own["model"]).is_file():
            raise FedpactError(
                f"model={own['model']} is a file, and the gate looks at an artifact: legal is a "
                "folder with manifest, card, golden outputs and signature. Ask its maker for that, "
                "or judge the file with gate=off."
            )
        if asked.other:
            raise FedpactError(
                "classes=other, and the gate adopts a model for its own classes alone; legal is "
                "gate=off. Leave out one of the two."
            )
        if parts.backbone is not None and "own" not in own:
            raise FedpactError(
                "backbone=... would change nothing: a folder's manifest names its backbone, and "
                "own=... is not given. Leave it out."
            )
        if parts.gate.max_arm is not None and not {"card", "source"} & set(own):
            raise FedpactError(
                f"gate.max_arm is {parts.gate.max_arm}, and ARM compares with the data that the "
                "model was trained on. Give card=FILE or source=DATA, or gate.max_arm=null."
            )
    else:
        idle = [key for key in ("ledger", "own") if key in own]
        idle += [f"inputs.{key}" for key in asked.inputs] + [f"gate.keys.{k}" for k in asked.keys]
        if idle:
            raise FedpactError(
                f"{idle[0]}=... is for the gate's checks, and none is held. Choose gate=fast or "
                "gate=full, or leave it out."
            )
    if "outcome" in own and asked.other:
        raise FedpactError(
            "outcome=measure trains the model as it is, and with classes=other its outputs are not "
            "the data's classes. Leave out one of the two."
        )
    if "out" in own:
        _check_new(Path(own["out"]))


def _check_new(folder: Path) -> None:
    taken = folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
    above = next(place for place in folder.absolute().parents if place.exists())
    if taken or not above.is_dir():
        raise FedpactError(
            f"out={folder} cannot be made, or holds something already; legal is a new folder, for "
            "no result replaces another. Name one."
        )


def _history(own: dict[str, str], judge: Judge) -> tuple[History, Path | None]:
    """The history, and its file."""
    place = own.get("history") or judge.history
    if place is None:
        if "outcome" in own:
            raise FedpactError(
                "outcome=measure adds a case to a history, and none is named; legal is a csv file, "
                "there or new. Name it: history=FILE."
            )
        return History(), None
    file = Path(place)
    if "outcome" in own:
        if not os.access(file.parent, os.W_OK):
            raise FedpactError(
                f"history={file} cannot be written: {file.parent} is no folder that may be written "
                "to. Make it, or name another file."
            )
    elif not file.exists():
        raise FedpactError(
            f"history={file} does not exist; legal is a csv file of finished cases. Correct the "
            "path, or leave it out: without a history the judge probes."
        )
    return History.load(file), file


# ------------------------------------------------------------------------------------ judging


def _data(asked: Asked, shape: Shape) -> Data:
    own = asked.own
    if asked.names and len(asked.names) != shape.classes:
        raise FedpactError(
            f"classes has {len(asked.names)} names and the model {shape.classes} classes; legal "
            "is a name each, in order. Give all."
        )
    ours = replace(shape, names=asked.names or shape.names, other=asked.other)
    target = read(Path(own["data"]), own.get("label"), ours)
    if "outcome" in own:
        outcome.check(target)
    source = card = None
    if "source" in own:
        theirs = replace(ours, other=False)
        source = read(Path(own["source"]), own.get("label"), theirs, "source")
    elif "card" in own:
        card = Profile.load(Path(own["card"]))
    return Data(target, source, card)


def _shape(manifest: Manifest) -> Shape:
    names = manifest.outputs.classes
    return Shape(int(np.prod(manifest.inputs.shape)), len(names), names)


def _examined(
    asked: Asked, parts: Parts, parcel: Parcel, ledger: Ledger | None
) -> tuple[Adoption, Data | None]:
    """What the gate says of an artifact, and the firm's data, if it came to reading them."""
    adoption = gating.origin(parts.gate, parcel)
    if not adoption.adopted:
        return adoption, None
    manifest, seed = parcel.manifest(), int(asked.own.get("seed", "0"))
    data = _data(asked, _shape(manifest))

    def arm(module: nn.Module, features: Array) -> float:
        rng = np.random.default_rng(seed)
        return Arm().score(module, data.known(module, seed), Target(features), rng).value

    receiver = Receiver(
        build=built_from(kinds()),
        inputs=gating.contract(manifest.inputs, data.target.features, asked.inputs),
        classes=asked.names or manifest.outputs.classes,
        features=data.target.features,
        labels=data.target.labels,
        own=_own_model(asked, parts, manifest),
        arm=None if data.source is None and data.card is None else arm,
        ledger=ledger,
        device=str(parts.training.torch_device),
    )
    return parts.gate.judge(parcel, receiver), data


def _own_model(asked: Asked, parts: Parts, manifest: Manifest) -> nn.Module | None:
    """The firm's own model, which must take and give what the offered one does."""
    if "own" not in asked.own:
        return None
    path = Path(asked.own["own"])
    model = read_model(path, parts.backbone, 0, int(parts.gate.max_folder_mb * 1e6))
    names = manifest.outputs.classes
    found, legal = (model.inputs, model.classes), (_shape(manifest).inputs, len(names))
    if found != legal or (model.names and model.names != (asked.names or names)):
        raise FedpactError(
            f"own={path} takes {found[0]} features and tells apart {found[1]} classes "
            f"{list(model.names)[:12]}; the offered model takes {legal[0]} and tells apart "
            f"{list(names)[:12]}. Both must agree to be compared: give another, or leave it out."
        )
    return model.module().to(parts.training.torch_device).eval()


def _able(judge: Judge, source: Source, target: Target, other: bool) -> tuple[Judge, list[str]]:
    """The judge with the measures that can be taken, and the names of the others."""

    def lacks(measure: ReuseMeasure) -> bool:
        no_card = measure.needs_source and source.profile is None
        return no_card or (measure.needs_labels and target.labels is None)

    fit = [m for m in judge.measures if not (other and isinstance(m, SAME_CLASSES))]
    able = [m for m in fit if not lacks(m)]
    left_out = [measure.name for measure in judge.measures if lacks(measure)]
    if not able:
        raise FedpactError(
            f"None of the measures ({', '.join(m.name for m in judge.measures)}) can be taken "
            "without labels and without a profile card. Give label=COLUMN, card=FILE or "
            "source=FILE."
        )
    return replace(judge, measures=tuple(able)), left_out


def _epoch(parts: Parts, module: nn.Module, target: Target, seed: int, classes: int) -> Epoch:
    """What an epoch takes, timed on a part of the data."""
    n = len(target.features)
    some = min(n, TIMED)
    labels = target.labels
    if labels is None or labels.max() >= classes:  # what they are changes no time
        labels = np.zeros(n, np.int64)
    copy = deepcopy(module)
    read_meter = parts.meter.start(parts.training.torch_device)
    parts.training.fit(copy, target.features[:some], labels[:some], seed, 1)
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


def _judge(asked: Asked) -> tuple[list[str], bool]:
    """What to print, and whether the gate refused the model."""
    own, parts = dict(asked.own), _parts(asked)
    seed, place, as_json = (
        int(own.get("seed", "0")),
        Path(own["model"]),
        own.get("format") == "json",
    )
    torch.set_num_threads(1)
    _check(asked, parts)
    device = parts.training.torch_device
    history, file = _history(own, parts.judge)
    shown, known, most = list[str](), dict[str, Any](), int(parts.gate.max_folder_mb * 1e6)
    if parts.gate.checks:
        ledger = load(Path(own["ledger"])) if "ledger" in own else None
        parcel = collect(place, most)  # read once: what the gate passes is what is judged
        adoption, data = _examined(asked, parts, parcel, ledger)
        if ledger is not None:
            save(ledger.record(adoption, adoption.round or 0), Path(own["ledger"]))
        known["adoption"] = json.loads(adoption.to_json())
        shown = [*gating.lines(adoption, asked.inputs), ""]
        _write(own, "adoption.json", adoption.to_json())
        if not adoption.adopted or data is None:
            return [to_text(known)] if as_json else shown, True
        offered = of_artifact(parcel.open(), place)
    else:
        offered = read_model(place, parts.backbone, int(own.get("features", "0")), most)
        data = _data(asked, Shape(offered.inputs, offered.classes, offered.names))
    if offered.names and asked.names not in ((), offered.names):
        raise FedpactError(
            f"classes is {list(asked.names)}, and the model's manifest says "
            f"{list(offered.names)[:12]}; legal is the same in the same order. Leave it out."
        )
    target = data.target
    module = offered.module().to(device)
    source = data.known(module, seed)
    judge, left_out = _able(parts.judge, source, target, asked.other)
    epoch = _epoch(parts, module, target, seed, offered.classes)
    told = judge.judge(module, source, target, history, epoch, np.random.default_rng(seed))
    known |= words.as_json(told, epoch.spent.known)
    shown += words.lines(told, {m.name: m for m in judge.measures}, left_out, epoch.spent.known)
    if asked.other:
        shown.append(
            "  classes=other: measures that compare classes are left out, and as it is, the model "
            "answers none of the data's."
        )
    if "outcome" in own:
        assert file is not None
        row: dict[str, Any] = {
            "case": own.get("case") or f"{place.name}-{Path(own['data']).stem}",
            "kind": own.get("kind") or Path(own["data"]).stem,
            **outcome.measured(offered, target, parts.training, seed),
            **{name: score.value for name, score in told.scores.items()},
        }
        history.with_case(row).save(file)
        shown += ["", f"measured: {row['epochs']} epochs to {row['ceiling']:.3f}; added to {file}"]
        known["outcome"] = row
    shown += _write(own, "judgement.json", to_text(known) + "\n")
    return [to_text(known)] if as_json else shown, False


def _write(own: dict[str, str], name: str, text: str) -> list[str]:
    """Put a file into the folder of results, if there is to be one; where it is."""
    if "out" not in own:
        return []
    path = Path(own["out"]) / name
    try:
        write_whole(path, text.encode())
    except OSError as fault:
        raise FedpactError(
            f"{path} cannot be written ({fault.strerror}); legal is a folder that may be written "
            "to. Name another with out=..."
        ) from fault
    return [str(path)]


def _calibrate(asked: Asked) -> list[str]:
    path = Path(asked.own["calibrate"])
    if not path.exists():
        raise FedpactError(
            f"calibrate={path} does not exist; legal is a csv file of finished cases. Correct the "
            "path; `python -m simulations experiment=arm_digits` writes one (history.csv)."
        )
    found = calibrate(_parts(asked).judge, History.load(path))
    return list(words.calibrated(found))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 where the gate refuses the model, 2 for a mistake that a person can mend."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    try:
        asked = parse(given)
        shown, refused = (_calibrate(asked), False) if "calibrate" in asked.own else _judge(asked)
    except FedpactError as fault:
        sys.stderr.write(f"fedpact: {fault}\n")
        return 2
    except (HydraException, OmegaConfBaseException) as fault:
        sys.stderr.write(f"fedpact: {explain(fault, asked.overrides, OWN)}\n")
        return 2
    except OSError as fault:
        sys.stderr.write(
            f"fedpact: {fault.filename}: {fault.strerror}; legal are files and folders that may be "
            "read, and written to where something is kept. Name another.\n"
        )
        return 2
    print("\n".join(shown))
    return int(refused)


if __name__ == "__main__":
    sys.exit(main())
