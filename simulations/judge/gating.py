"""The adoption gate on a folder, before its model is judged."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import parties.backbones
from parties.backbones import Backbone
from parties.reuse import Target
from parties.reuse.adoption import Adoption
from parties.reuse.checks import PASS, SKIPPED, Receiver
from parties.reuse.gate import Gate, built_from
from parties.reuse.ledger import load, save
from parties.reuse.manifest import Inputs
from simulations.judge.model import Offered


def kinds() -> dict[str, type[Backbone]]:
    """Class path -> class, of every backbone of ours."""
    found = {}
    for module in pkgutil.iter_modules(parties.backbones.__path__, "parties.backbones."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, Backbone) and value is not Backbone:
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


def examine(
    gate: Gate, folder: Path, offered: Offered, target: Target, ledger: Path | None, device: str
) -> Adoption:
    """Hold the gate's checks on an artifact; note it in the ledger, where one is kept."""
    low, high = float(target.features.min()), float(target.features.max())
    known = load(ledger) if ledger is not None else None
    names = offered.names or tuple(str(c) for c in range(offered.classes))
    receiver = Receiver(
        build=built_from(kinds()),
        inputs=Inputs(target.features.shape[1:], low, max(high, low + 1e-6)),
        classes=names,
        features=target.features,
        labels=target.labels,
        ledger=known,
        device=device,
    )
    adoption = gate.judge(folder, receiver)
    if ledger is not None and known is not None:
        save(known.record(adoption, adoption.round or 0), ledger)
    return adoption


def lines(adoption: Adoption) -> Iterator[str]:
    """The checks that say something, and the decision."""
    told = [c for c in adoption.checks if c.status not in (PASS, SKIPPED)]
    passed = sum(c.status == PASS for c in adoption.checks)
    skipped = sum(c.status == SKIPPED for c in adoption.checks)
    yield f"gate: {adoption.decision}; {passed} checks pass, {skipped} skipped, {len(told)} object"
    for check in told:
        yield f"  {check.status} {check.number} {check.name} ({check.theme}): {check.reason}"
