"""Checks 14 to 16: is it good on the firm's own cases, is it sure, does it stand its sensors?"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any
from zlib import crc32

import numpy as np
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from parties.exchange import Array
from parties.reuse.checks import WARN, Case, Finding, judged, skipped
from parties.reuse.features import LAYERS, look

NO_LABELS = "The firm has no labelled cases to judge it on. Give some that no model was trained on."
MOST = 4000  # cases that a probe is fitted and tested on
LEAST = 20
SURE = 0.9  # a wrong answer with more confidence is a confident error


def probe(case: Case) -> Finding:
    """Check 14: a linear classifier on its features beats the own model, and an untrained copy.

    With the policy's `judged_by: answers` its own answers must, as where a model is used as it is.
    On some of the firm's cases the probe is fitted, on the others it is compared. It blocks
    where the gain in accuracy is below the margin, or not above an untrained copy's beyond doubt;
    it warns where the gain is above the margin but its interval reaches below.
    A model without a hidden layer has no features to probe: its own answers are compared.
    """
    if case.labelled is None:
        return skipped(NO_LABELS)
    features, labels = case.labelled
    rng = np.random.default_rng([case.receiver.seed, crc32(b"probe")])
    fitted, tested = halves(labels, rng, case.gate.probe_labels)
    if len(tested) < LEAST or len(np.unique(labels[fitted])) < 2:
        return skipped(
            f"{len(tested)} cases of the firm are left to compare on; legal are {LEAST} and two "
            "classes or more. Give more labelled cases."
        )
    right = {}
    for name, model in (("offered", case.module), ("untrained", case.untrained())):
        if case.gate.judged_by == "probe" and _has_features(model):
            right[name] = _probed(model, features, labels, fitted, tested, rng)
        elif (order := case.columns()) is None or case.missing_head:
            return skipped("There is nothing to probe, and it gives no answers in your classes.")
        else:  # what it answers is all that it offers
            answers = case.run(features[tested], model.eval())[:, order].argmax(1)
            right[name] = np.asarray(answers == labels[tested])
    own = case.receiver.own
    if own is not None:
        assert case.receiver.features is not None
        made = case.run(case.receiver.features[tested], own.eval())
        right["own"] = np.asarray(made.argmax(1) == labels[tested])
    gate = case.gate
    value: dict[str, Any] = {k: float(v.mean()) for k, v in right.items()}
    limit: dict[str, Any] = {"gain": gate.margin, "arm": gate.max_arm}
    probed = gate.judged_by == "probe" and _has_features(case.module)
    it = "A probe on its features" if probed else "It"
    value |= {"cases": len(tested), "judged_by": "probe" if probed else "answers"}
    arm = case.receiver.arm
    if arm is not None:
        value["arm"] = float(arm(case.module, features))
    _, least, _ = paired(right["offered"], right["untrained"], gate.confidence)
    value["over_untrained_at_least"] = least
    if not least > 0:
        return judged(
            f"It serves no better than an untrained copy's ({value['offered']:.3f} against "
            f"{value['untrained']:.3f} right, the gain may be {least:.3f}); legal is a gain above "
            "0 beyond doubt. It has learned nothing that helps here: refuse it.",
            value,
            limit,
        )
    if gate.max_arm is not None and arm is not None and not value["arm"] <= gate.max_arm:
        return judged(
            f"Its ARM is {value['arm']:.4g}; legal is {gate.max_arm:g}. Retraining it here would "
            "cost too much: refuse it, or raise the policy's limit.",
            value,
            limit,
        )
    if own is None:
        return judged("", value, limit)
    gain, least, most = paired(right["offered"], right["own"], gate.confidence)
    value |= {"gain": gain, "gain_at_least": least, "gain_at_most": most}
    if gain < gate.margin:
        return judged(
            f"{it} gains {gain:.3f} of accuracy over your own model (from "
            f"{least:.3f} to {most:.3f}); legal is {gate.margin:g} or more. Keep your own model.",
            value,
            limit,
        )
    if least < gate.margin:
        ahead = (gain - gate.margin) / (gain - least)  # 1 where it would be decided
        needed = f"{math.ceil(len(tested) / ahead**2):,}" if ahead > 1e-3 else "Too many"
        return Finding(
            WARN,
            f"{it} gains {gain:.3f} of accuracy over your own model, but from {least:.3f} to "
            f"{most:.3f} is possible and {gate.margin:g} is asked for. {needed} cases to test "
            "on would decide: give more, or lower the margin.",
            value,
            limit,
        )
    return judged("", value, limit)


def halves(labels: Array, rng: np.random.Generator, most: int | None) -> tuple[Array, Array]:
    """Rows to fit on and rows to test on: of each class half, at most `most` of it, to fit on."""
    order = rng.permutation(len(labels))[:MOST]
    fitted = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        half = len(members) // 2
        fitted[members[: half if most is None else min(half, most)]] = True
    return np.flatnonzero(fitted), np.sort(order[~fitted[order]])


def _has_features(model: nn.Module) -> bool:
    """Whether there is a layer before the classifier."""
    return sum(isinstance(module, LAYERS) for module in model.modules()) > 1


def _probed(
    model: nn.Module,
    features: Array,
    labels: Array,
    fitted: Array,
    tested: Array,
    rng: np.random.Generator,
) -> Array:
    """Which of the tested cases a linear classifier on the model's embedding gets right."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(look(model, features[fitted], rng).embedding, labels[fitted])
    answers = probe.predict(look(model, features[tested], rng).embedding)
    right: Array = answers == labels[tested]
    return right


def paired(one: Array, two: Array, confidence: float) -> tuple[float, float, float]:
    """Gain in accuracy of one over two on the same cases, and its interval.

    With b cases that only the first gets right, c that only the second does, of n:
    gain = (b - c) / n; the interval is (b - c) / N -+ z sqrt((b + c + 1) - (b - c)^2 / N) / N with
    N = n + 2 (half a case is added to each cell of the table, so that no interval has width 0).

    >>> one, two = np.array([True] * 30 + [False] * 70), np.array([False] * 90 + [True] * 10)
    >>> [round(x, 3) for x in paired(one, two, 0.95)]
    [0.2, 0.079, 0.313]

    References:
        Agresti & Min (2005), Statistics in Medicine 24, 729-740, doi 10.1002/sim.1781.
    """
    b, c = int(np.sum(one & ~two)), int(np.sum(~one & two))
    n = len(one) + 2
    middle = (b - c) / n
    half = float(norm.ppf(0.5 + confidence / 2)) * math.sqrt(b + c + 1 - (b - c) ** 2 / n) / n
    return (b - c) / len(one), middle - half, middle + half


def reliability(case: Case) -> Finding:
    """Check 15: how far its confidence is from its accuracy, and how often it is surely wrong."""
    if case.labelled is None:
        return skipped(NO_LABELS)
    if case.missing_head:
        return skipped("Only the backbone was sent: it answers nothing yet.")
    features, labels = case.labelled
    probs = case.probabilities(features)
    confidence, answers = probs.max(1), probs.argmax(1)
    right = answers == labels
    chosen = probs[np.arange(len(labels)), labels]
    value: dict[str, Any] = {
        "ece": calibration_error(confidence, right, case.gate.ece_bins),
        "confident_errors": float(np.mean(~right & (confidence > SURE))),
        "log_loss": float(-np.log(np.maximum(chosen, 1e-300)).mean()),
        "accuracy": float(right.mean()),
    }
    if case.receiver.own is not None:
        assert case.receiver.features is not None
        own = case.run(case.receiver.features, case.receiver.own.eval()).argmax(1)
        value["disagreement"] = float(np.mean(own != answers))
    limits = {"ece": case.gate.max_ece, "confident_errors": case.gate.max_confident_errors}
    over = [f"{k} is {value[k]:.3f}, legal is {v:g}" for k, v in limits.items() if value[k] > v]
    advice = "Calibrate it on your cases (temperature scaling) before its probabilities are used."
    return judged(f"{'; '.join(over)}. {advice}" if over else "", value, limits)


def calibration_error(confidence: Array, right: Array, bins: int) -> float:
    """Expected calibration error: sum over equal bins of (n_b / n) |accuracy_b - confidence_b|.

    Args:
        confidence: (n,) the largest probability of each case.
        right: (n,) whether that class is the true one.

    >>> round(calibration_error(np.array([0.9, 0.9, 0.6]), np.array([True, False, True]), 10), 4)
    0.4

    References:
        Guo et al., arXiv 1706.04599, equation 3.
    """
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(places, right.astype(np.float64) - confidence, bins)
    return float(np.abs(gaps).sum() / len(confidence))


def robustness(case: Case) -> Finding:
    """Check 16: how much accuracy the firm's sensors cost it, at worst."""
    if case.labelled is None:
        return skipped(NO_LABELS)
    if case.missing_head:
        return skipped("Only the backbone was sent: it answers nothing yet.")
    firm = case.receiver
    assert firm.features is not None
    assert firm.labels is not None
    transforms = turns(firm.features) if firm.transforms is None else firm.transforms
    if not transforms:
        return skipped("The firm's cases are no square images. Give transforms of its sensors.")
    labels = firm.labels

    def accuracy(features: Array) -> float:
        return float(np.mean(case.probabilities(features).argmax(1) == labels))

    turned = {name: turn(firm.features) for name, turn in transforms.items()}
    upright = accuracy(case.upright(firm.features))
    kept = {name: accuracy(case.upright(seen)) for name, seen in turned.items()}
    worst = min(kept, key=lambda name: kept[name])
    drop, limit = upright - kept[worst], case.gate.max_drop
    value: dict[str, Any] = {"accuracy": upright, "worst": worst, "drop": drop}
    if firm.canonicalize is not None:
        bare = min(accuracy(seen) for seen in turned.values())
        value["drop_without_canonicalization"] = accuracy(firm.features) - bare
    return judged(
        f"Under {worst} its accuracy falls by {drop:.3f} to {kept[worst]:.3f}; legal is {limit:g}. "
        "Turn cases upright before it sees them (canonicalize), or retrain it on such cases."
        if drop > limit
        else "",
        value,
        {"drop": limit},
    )


def turns(features: Array) -> dict[str, Callable[[Array], Array]]:
    """The turns of square images by 90, 180 and 270 degrees; none where they are not square."""
    side = math.isqrt(features.shape[-1])
    flat = features.ndim == 2
    square = side * side == features.shape[-1] if flat else features.shape[-1] == features.shape[-2]
    if not square or side < 2:
        return {}

    def turn(times: int) -> Callable[[Array], Array]:
        def by(rows: Array) -> Array:
            images = rows.reshape(-1, side, side) if flat else rows
            turned = np.rot90(images, times, axes=(-2, -1))
            return np.ascontiguousarray(turned).reshape(rows.shape)

        return by

    return {f"a turn by {90 * times} degrees": turn(times) for times in (1, 2, 3)}
