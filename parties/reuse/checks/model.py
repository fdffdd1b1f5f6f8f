"""Checks 4 to 10: does the model fit, run, and do here what it did at its maker's?"""

from __future__ import annotations

import math
import platform
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from torch import nn

from parties.exchange import Array
from parties.reuse.artifact import tables_differ
from parties.reuse.checks import WARN, Case, Finding, judged, skipped
from parties.reuse.manifest import classes_hash

EXPORT = "torch.export"


def architecture(case: Case) -> Finding:
    """Check 4: names, shapes and types of the tensors are those of the firm's own build of it."""
    if objection := tables_differ(case.artifact):
        return judged(objection)
    wrong = case.misfits()
    left = [name for name in wrong if name not in case.missing_head]
    kind = case.manifest.backbone["class"]
    if left:
        given, built = wrong[left[0]]
        return judged(
            f"{len(left)} tensors do not fit {kind}; the first is {left[0]!r}: "
            f"{given or 'missing'} where {built or 'nothing of that name'} is legal. "
            " Build the architecture that the manifest describes, or refuse the model.",
            len(left),
            0,
        )
    return judged("", 0, 0)


def weights(case: Case) -> Finding:
    """Check 5: no NaN, no infinity; no constant layer, no norm far from the own model's."""
    floats = {k: v for k, v in case.artifact.weights.items() if v.dtype.kind == "f"}
    broken = {k: int(np.count_nonzero(~np.isfinite(v))) for k, v in floats.items()}
    count = sum(broken.values())
    if count:
        name = next(k for k, n in broken.items() if n)
        return judged(
            f"{count} weights are NaN or infinite, the first in {name!r}; legal are finite ones. "
            "Training has diverged at its maker's: ask for an earlier round.",
            count,
            0,
        )
    layers = {k: v for k, v in floats.items() if v.ndim >= 2 and v.size > 1}
    constant = [k for k, v in layers.items() if float(v.max()) == float(v.min())]
    if constant:
        return Finding(
            WARN,
            f"Every weight of {constant[0]!r} is the same; a trained layer differs. Ask its maker "
            "whether it was trained at all.",
            len(constant),
            0,
        )
    ratio, name = _farthest(layers, case.receiver.own)
    limit = case.gate.max_norm_ratio
    far = (
        f"The norm of {name!r} is {ratio:.3g} times the own model's (or the own this much "
        f"larger); legal is {limit:g}. Its inputs may be scaled otherwise: compare the manifest's "
        "mean and std with yours."
    )
    return Finding(WARN, far, ratio, limit) if ratio > limit else judged("", ratio, limit)


def _farthest(layers: dict[str, Array], own: nn.Module | None) -> tuple[float, str]:
    """The largest ratio of norms, either way round, over layers that both have."""
    ratio, farthest = 1.0, ""
    for name, value in ({} if own is None else own.state_dict()).items():
        if name in layers and tuple(value.shape) == layers[name].shape:
            one = float(np.linalg.norm(layers[name].astype(np.float64)))
            two = float(value.double().norm())
            if one > 0 and two > 0 and max(one / two, two / one) > ratio:
                ratio, farthest = max(one / two, two / one), name
    return ratio, farthest


def input_contract(case: Case) -> Finding:
    """Check 6: it takes what the firm has, and gives for golden inputs what its maker got."""
    theirs, ours = case.manifest.inputs, case.receiver.inputs
    for name in ("shape", "dtype", "channels", "mean", "std", "group"):
        one, two = getattr(theirs, name), getattr(ours, name)
        if one != two:
            return judged(
                f"It takes inputs with {name} {one!r}; yours have {two!r}. Convert your features "
                "to its contract, and say so in your own, or refuse the model."
            )
    channels = {len(theirs.mean), len(theirs.std)} - {0}
    if len(channels) > 1 or any(math.prod(theirs.shape) % n for n in channels):
        return judged(
            f"It declares {len(theirs.mean)} means and {len(theirs.std)} deviations for inputs of "
            f"shape {theirs.shape}; legal is one a channel in both. Ask its maker which it used."
        )
    if (theirs.low, theirs.high) != (ours.low, ours.high):
        return judged(
            f"It takes features from {theirs.low:g} to {theirs.high:g}; yours go from "
            f"{ours.low:g} to {ours.high:g}. Rescale them, and say so in your own contract."
        )
    if case.missing_head:
        return skipped("Only the backbone was sent: there are no outputs to compare.")
    golden = case.artifact.golden
    if golden is None:
        return skipped("The model came without golden inputs to try it on.")
    if golden.inputs.shape[1:] != theirs.shape:
        return judged(
            f"The golden inputs have the shape {golden.inputs.shape[1:]}; the manifest says "
            f"{theirs.shape}. Ask its maker for golden inputs of the contract."
        )
    made = case.run(golden.inputs)
    worst = float("inf")
    if made.shape == golden.logits.shape:
        difference = np.abs(made - golden.logits)
        worst = float(difference.max()) if np.all(np.isfinite(difference)) else worst
    limit = case.gate.golden_tolerance
    return judged(
        f"On the golden inputs its outputs differ from its maker's by {worst:.3g}; legal is "
        f"{limit:g}. Its maker prepares inputs otherwise, or runs another model: ask."
        if worst > limit
        else "",
        worst,
        limit,
    )


def output_contract(case: Case) -> Finding:
    """Check 7: its classes are the firm's, in order, or a mapping says which is which."""
    outputs = case.manifest.outputs
    if case.missing_head:
        return skipped("Only the backbone was sent: it names no class.")
    if outputs.hash != classes_hash(outputs.classes):
        return judged("The hash of the class list is not that of the classes. Ask its maker.")
    if case.columns() is None:
        return judged(
            f"Its classes are {list(outputs.classes)[:12]}, yours "
            f"{list(case.receiver.classes)[:12]}; legal are the same in the same order, or a "
            "mapping that names one of its outputs for each of yours. Give the mapping."
        )
    width = case.run(case.batch(1)).shape[1]
    if width != len(outputs.classes):
        return judged(
            f"It has {width} outputs for {len(outputs.classes)} named classes; legal is one each. "
            "Ask its maker which it means."
        )
    return Finding()


def repeatable(case: Case) -> Finding:
    """Check 8: in eval mode the same twice, alone as in a batch; BatchNorm has its statistics."""
    bare = [
        name
        for name, module in case.module.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and (module.num_batches_tracked is None or int(module.num_batches_tracked) == 0)
    ]
    if bare:
        return judged(
            f"BatchNorm layer {bare[0]!r} has statistics of no batch; legal are those of training. "
            "Ask its maker for the buffers too (state_dict, not parameters)."
        )
    rows = case.batch(8)
    first, second = case.run(rows), case.run(rows)
    apart = float(np.abs(first - second).max())
    if not np.array_equal(first, second):
        return judged(
            f"Two passes over the same cases differ by {apart:.3g} in eval mode; legal is 0. "
            "Dropout or noise is switched on inside: mend the module that you build.",
            apart,
            0,
        )
    alone = float(np.abs(case.run(rows[:1]) - first[:1]).max())
    limit = case.gate.golden_tolerance
    return judged(
        f"A case alone and in a batch differ by {alone:.3g}; legal is {limit:g}. BatchNorm takes "
        "the batch's statistics: mend the module that you build."
        if not alone <= limit
        else "",
        alone,
        limit,
    )


def software(case: Case) -> Finding:
    """Check 9: what it declares to need is installed."""
    for name, wanted in sorted(case.manifest.environment.items()):
        try:
            found = platform.python_version() if name == "python" else version(name)
        except PackageNotFoundError:
            return judged(
                f"It needs {name} {wanted}, and there is none; legal is to have it. Install it."
            )
        try:
            satisfied = SpecifierSet(wanted).contains(found, prereleases=True)
        except InvalidSpecifier:
            return judged(
                f"It needs {name} {wanted!r}, which is no version specifier; legal is, for "
                "example, '>=2.13,<3'. Ask its maker."
            )
        if not satisfied:
            return judged(
                f"It needs {name} {wanted}; installed is {found}, legal what it needs. Install a "
                "version that fits, or ask its maker for a model of yours.",
                found,
                wanted,
            )
    return Finding()


def portability(case: Case) -> Finding:
    """Check 10: it goes into the formats that it promises, and gives the same from there."""
    promised = case.manifest.exports
    unknown = sorted(set(promised) - {EXPORT})
    if unknown:
        return judged(
            f"It promises to go into {unknown[0]!r}, which the gate cannot try; it knows {EXPORT}. "
            "Try it yourself and take the check from the policy, or ask for a manifest without."
        )
    if not promised:
        return skipped("It promises no export.")
    rows = case.batch(4) if case.artifact.golden is None else case.artifact.golden.inputs
    try:
        made = _exported(case.module, case.tensor(rows))
    except Exception as fault:  # torch.export raises many kinds
        return judged(
            f"{EXPORT} fails though its maker promises it ({type(fault).__name__}); "
            "legal is a promise that holds. Ask for a "
            "model without branches on data, or strike the promise."
        )
    apart, limit = float(np.abs(made - case.run(rows)).max()), case.gate.golden_tolerance
    return judged(
        f"Exported, its outputs differ by {apart:.3g}; legal is {limit:g}. Ask its maker."
        if not apart <= limit
        else "",
        apart,
        limit,
    )


def _exported(module: nn.Module, rows: torch.Tensor) -> Any:
    import torch.export  # loads the compiler, which takes seconds

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about its own future
        program = torch.export.export(module, (rows,))
        return program.module()(rows).double().cpu().numpy()
