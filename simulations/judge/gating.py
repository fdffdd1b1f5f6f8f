"""The adoption gate on a folder, before its model is judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from parties.exchange import Array, FedpactError
from parties.reuse.adoption import Adoption
from parties.reuse.artifact import Parcel
from parties.reuse.bounded import ArtifactError
from parties.reuse.checks import PASS, SKIPPED, Receiver
from parties.reuse.gate import DANGEROUS, Gate, built_from
from parties.reuse.manifest import Inputs
from simulations.judge.model import kinds


def origin(gate: Gate, parcel: Parcel) -> Adoption:
    """The policy's checks 1 to 4, before anything that a stranger declares is acted on.

    Where the policy has none of them, still what cannot be read is refused.
    """
    checks, demanded = (tuple(n for n in m if n in DANGEROUS) for m in (gate.checks, gate.demanded))
    nobody = Receiver(built_from(kinds()), Inputs((1,), 0.0, 1.0), ())
    return replace(gate, checks=checks, demanded=demanded).judge(parcel, nobody)


def contract(theirs: Inputs, features: Array, stated: Mapping[str, Any]) -> Inputs:
    """The firm's own contract of inputs: what it states, and for the rest what the maker declares.

    Where it states no range, the declared one stands if its data are inside it.

    Args:
        theirs: as the manifest has it.
        features: (n, d) the firm's data, as the model takes them.
        stated: fields of `Inputs`, as far as the firm states them.

    Raises:
        FedpactError: what is stated is not legal, or not true of the firm's own data.
    """
    try:
        ours = replace(theirs, shape=features.shape[1:], **stated)
    except ArtifactError as fault:
        raise FedpactError(str(fault).removeprefix("manifest.")) from fault
    channels = max(len(ours.mean), len(ours.std), 1)
    if features.shape[1] % channels or {len(ours.mean), len(ours.std)} - {0, channels}:
        return ours  # to which check 6 objects
    before = _unscaled(features, ours, channels)
    low, high = float(before.min()), float(before.max())
    slack = 1e-5 * max(abs(ours.low), abs(ours.high))  # float32, and the way back from mean and std
    if ours.low - slack <= low and high <= ours.high + slack:
        return ours
    if {"low", "high"} & set(stated):
        raise FedpactError(
            f"inputs.low and inputs.high are {ours.low:g} and {ours.high:g}, and the data go from "
            f"{low:g} to {high:g}; legal is a range that they are inside of. State that of the "
            "features before mean and std are applied, or prepare the data so."
        )
    return replace(ours, low=min(ours.low, low), high=max(ours.high, high))


def _unscaled(features: Array, inputs: Inputs, channels: int) -> Array:
    """Features (n, channels, places) before mean and std, one number a channel, were applied."""
    rows = features.reshape(len(features), channels, -1).astype(np.float64)
    std = np.array(inputs.std or [1.0])[:, None]
    mean = np.array(inputs.mean or [0.0])[:, None]
    unscaled: Array = rows * std + mean
    return unscaled


def lines(adoption: Adoption, stated: Mapping[str, Any]) -> Iterator[str]:
    """The checks that say something, the decision, and what was taken on trust."""
    told = [c for c in adoption.checks if c.status not in (PASS, SKIPPED)]
    passed = sum(c.status == PASS for c in adoption.checks)
    skipped = sum(c.status == SKIPPED for c in adoption.checks)
    yield f"gate: {adoption.decision}; {passed} checks pass, {skipped} skipped, {len(told)} object"
    for check in told:
        yield f"  {check.status} {check.number} {check.name} ({check.theme}): {check.reason}"
    trusted = [n for n in ("low", "high", "channels", "mean", "std", "group") if n not in stated]
    if trusted and adoption.checks[5].status == PASS:
        yield f"  taken as the maker declares, for want of inputs.NAME=...: {', '.join(trusted)}"
