"""The profile card: what travels with a model in the place of the data that it was trained on.

For every filter of every layer nine quantiles and the standard deviation of its output; of the
embedding (what the classifier takes in) its mean, covariance and sum by class. Nothing of a case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from torch import nn

from parties.exchange import Array, FedpactError
from parties.reuse.features import look

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(9)
LEVELS: Array = (_NODES + 1) / 2
"""Levels of the nine quantiles: the nodes of Gauss and Legendre on (0, 1), 0.016 to 0.984."""
SHARES: Array = _WEIGHTS / 2
"""What each counts for in a mean over all levels; they sum to 1."""
FLOATS = (np.float32, np.float64)
LARGEST = 1e30  # size of a card's numbers: beyond, their squares and differences overflow


@final
@dataclass(frozen=True)
class Profile:
    """What a maker tells of its data through its model's eyes.

    Args:
        cases: how many cases it was taken from.
        quantiles: layer -> (9, filters) float32, at `LEVELS`, in the order in which layers run.
        deviations: layer -> (filters,) float32, standard deviations.
        mean, covariance: of the embedding, (d,) and (d, d), float64; None where withheld.
        class_sums: (classes, d) float64, sums of the embedding by class; None where withheld.

    Raises:
        FedpactError: shapes do not fit together, or a number is not finite or too large.
    """

    cases: int
    quantiles: Mapping[str, Array]
    deviations: Mapping[str, Array]
    mean: Array | None = None
    covariance: Array | None = None
    class_sums: Array | None = None

    def __post_init__(self) -> None:
        whole = isinstance(self.cases, int) and not isinstance(self.cases, bool)
        _check(whole and self.cases >= 1, f"cases is {self.cases!r}; legal is a count >= 1")
        _check(bool(self.quantiles), "there is no layer; legal is one or more")
        _check(
            list(self.quantiles) == list(self.deviations),
            f"quantiles are of {list(self.quantiles)}, deviations of {list(self.deviations)}; "
            "legal are the same layers",
        )
        for layer, values in self.quantiles.items():
            shape = values.shape
            _check(
                len(shape) == 2 and shape[0] == len(LEVELS) and shape[1] >= 1,
                f"quantiles of {layer!r} have the shape {shape}; legal is ({len(LEVELS)}, filters)",
            )
            _fits(values, shape, f"quantiles of {layer!r}")
            _check(bool(np.all(values[1:] >= values[:-1])), f"quantiles of {layer!r} decrease")
            spread = self.deviations[layer]
            _fits(spread, shape[1:], f"deviations of {layer!r}")
            _check(bool(np.all(spread >= 0)), f"deviations of {layer!r} are below 0")
        told = [v for v in (self.class_sums, self.covariance, self.mean) if v is not None]
        width = told[0].shape[-1] if told and told[0].ndim else 0
        if self.mean is not None:
            _fits(self.mean, (width,), "mean")
        if self.covariance is not None:
            _fits(self.covariance, (width, width), "covariance")
        if self.class_sums is not None:
            _fits(self.class_sums, (*self.class_sums.shape[:1], width), "class_sums")

    @staticmethod
    def of(
        model: nn.Module, features: Array, labels: Array | None, rng: np.random.Generator
    ) -> Profile:
        """The card of a model for the data it was trained on.

        Args:
            features: (n, ...) float32, as the model takes them.
            labels: (n,) int64, or None for a card without class sums.
            rng: decides which cases are looked at, where there are more than enough.
        """
        seen = look(model, features, rng)
        embedding = seen.embedding
        mean = embedding.mean(0)
        centred = embedding - mean
        sums = None
        if labels is not None:
            classes = max(seen.logits.shape[1], int(labels.max()) + 1)
            sums = np.zeros((classes, embedding.shape[1]))
            np.add.at(sums, labels[seen.rows], embedding)
        return Profile(
            len(embedding),
            {k: quantiles(np.sort(v, axis=0), LEVELS) for k, v in seen.layers.items()},
            {k: v.std(axis=0, dtype=np.float64).astype(np.float32) for k, v in seen.layers.items()},
            mean,
            centred.T @ centred / max(len(centred) - 1, 1),
            sums,
        )

    # ------------------------------------------------------------------------------- travelling

    def to_arrays(self) -> dict[str, Array]:
        """Name -> array, whatever carries them; `from_arrays` reads it whatever their order."""
        arrays: dict[str, Array] = {"cases": np.array([self.cases], np.int64), "levels": LEVELS}
        for place, layer in enumerate(self.quantiles):
            arrays[f"quantiles/{place:03d}/{layer}"] = self.quantiles[layer]
            arrays[f"deviations/{place:03d}/{layer}"] = self.deviations[layer]
        for name in ("mean", "covariance", "class_sums"):
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array]) -> Profile:
        """The card that `to_arrays` made.

        Raises:
            FedpactError: an array is missing, unknown, or has the wrong shape.
        """
        _check({"cases", "levels"} <= set(arrays), "it lacks `cases` or `levels`")
        cases, levels = arrays["cases"], arrays["levels"]
        _check(
            cases.shape == (1,) and cases.dtype.kind in "iu",
            f"cases has the shape {cases.shape} and dtype {cases.dtype}; legal is one whole number",
        )
        _check(
            levels.shape == LEVELS.shape
            and levels.dtype.kind == "f"
            and np.allclose(levels, LEVELS, atol=1e-12),
            "its quantiles are at other levels than this version's",
        )
        parts: dict[str, dict[str, Array]] = {"quantiles": {}, "deviations": {}}
        known = {"cases", "levels", "mean", "covariance", "class_sums"}
        for name in sorted(set(arrays) - known):
            kind, _, place = name.partition("/")
            _check(kind in parts and "/" in place, f"it holds {name!r}, which no card has")
            parts[kind][place.partition("/")[2]] = arrays[name]
        rest = {k: arrays[k] for k in ("mean", "covariance", "class_sums") if k in arrays}
        return Profile(int(cases[0]), parts["quantiles"], parts["deviations"], **rest)

    def to_bytes(self) -> bytes:
        """The card as one safetensors file."""
        arrays = {k: np.ascontiguousarray(v) for k, v in self.to_arrays().items()}
        content: bytes = save_arrays(arrays)
        return content

    @staticmethod
    def from_bytes(content: bytes) -> Profile:
        """The card in a safetensors file's bytes.

        Raises:
            FedpactError: they are no safetensors file, or hold no card.
        """
        try:
            arrays = load_arrays(content)
        except (SafetensorError, ValueError, KeyError) as fault:
            raise FedpactError(
                f"This is no profile card ({fault}); legal is a safetensors file that "
                "Profile.to_bytes made. Ask the model's maker for it again."
            ) from fault
        return Profile.from_arrays(arrays)

    @property
    def size(self) -> int:
        """Bytes of the card's file."""
        return len(self.to_bytes())

    def save(self, path: Path) -> None:
        """Write the card's file."""
        path.write_bytes(self.to_bytes())

    @staticmethod
    def load(path: Path) -> Profile:
        """Read a card's file.

        Raises:
            FedpactError: the file cannot be read, or holds no card.
        """
        try:
            content = path.read_bytes()
        except OSError as fault:
            raise FedpactError(
                f"The profile card {path} cannot be read ({fault.strerror}). Give the path of a "
                "file that Profile.save wrote."
            ) from fault
        return Profile.from_bytes(content)


def quantiles(ordered: Array, levels: Array) -> Array:
    """Quantiles (levels, filters) of sorted columns (n, filters): the value at (n u - 1/2).

    Case i of n stands for the levels from i/n to (i+1)/n, so its own level is their middle.
    """
    places = np.clip(len(ordered) * levels - 0.5, 0, len(ordered) - 1)
    low = np.floor(places).astype(int)
    high = np.minimum(low + 1, len(ordered) - 1)
    part = (places - low)[:, None].astype(ordered.dtype)
    values: Array = ordered[low] + part * (ordered[high] - ordered[low])
    return np.maximum.accumulate(values, axis=0)  # rounding may turn equal ones around


def _check(legal: bool, problem: str) -> None:
    if not legal:
        raise FedpactError(
            f"This profile card cannot be used: {problem}. Take it again with Profile.of, or ask "
            "the model's maker for it."
        )


def _fits(values: object, shape: tuple[int, ...], name: str) -> None:
    _check(
        isinstance(values, np.ndarray) and values.dtype in FLOATS and values.shape == shape,
        f"{name} is not an array of floats (32 or 64 bits) of the shape {shape}",
    )
    assert isinstance(values, np.ndarray)
    _check(bool(np.isfinite(values).all()), f"{name} has values that are not finite")
    _check(
        bool((np.abs(values) <= LARGEST).all()),
        f"{name} has values beyond {LARGEST:g}",
    )


@final
@dataclass(frozen=True)
class Source:
    """What is known of the data that a model was trained on.

    Args:
        profile: its maker's card, or None where there is none.
        features: the data themselves (n, ...), only where they are at hand: then measures that
            compare samples can be taken exactly.
        labels: (n,) with them.
    """

    profile: Profile | None
    features: Array | None = None
    labels: Array | None = None

    @property
    def card(self) -> Profile:
        """The maker's card.

        Raises:
            FedpactError: there is none.
        """
        if self.profile is None:
            raise FedpactError(
                "This measure compares with the data that the model was trained on, and there is "
                "no profile card of them. Ask the model's maker for one (Profile.of), or use a "
                "measure without: zero_shot, linear_probe, leep."
            )
        return self.profile

    def __post_init__(self) -> None:
        features = 0 if self.features is None else len(self.features)
        if self.labels is not None and len(self.labels) != features:
            raise FedpactError(
                f"The source has {len(self.labels)} labels for {features} examples; give one each, "
                "or leave labels out."
            )
