"""ARM: how far a firm's data move what the model's layers put out, before any retraining."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import nn

from parties.exchange import Array, FedpactError
from parties.reuse import COST, ReuseMeasure, Target, chosen_word
from parties.reuse.features import MOST, look
from parties.reuse.profile import LEVELS, SHARES, Profile, Source, quantiles

ROUNDING = 1e-6  # share of a filter's largest output below which float32 tells nothing
VARIANTS = ("exact", "raw", "hist", "literal")
Distance = Callable[[Array, Array], float | None]
"""From sorted columns of the source (n, filters) and the target (m, filters), of one layer; None
where no filter tells anything."""


@final
@dataclass(frozen=True)
class Arm(ReuseMeasure):
    """The distance between what the layers say of the source's data and of the firm's.

    ARM = mean over layers l of D_l; smaller means cheaper retraining. By `variant`, D_l is

    * exact: the mean over the layer's filters of W1(a, b) / std(a), where a and b are the filter's
      outputs for the source and the target and W1 = integral of |quantile of a - quantile of b|.
      It does not change when a filter is rescaled or moved, and equals |shift| / std for a pure
      shift. Filters that are constant on the source are left out.
    * raw: the mean over filters of W1(a, b).
    * hist: shared edges a filter; the earth mover's distance, over bin positions from 0 to 1,
      between the histograms averaged over the filters.
    * literal: as the family's published code has it. Each histogram has edges of its own, and the
      distance is that of the sorted heights. So reversed histograms are at no distance, and
      outputs that all grow by 5 or tenfold are not noticed. For comparison only.

    exact and raw are taken from the source's data where they are at hand, else from its profile
    card, by a quadrature of W1 over its nine quantiles: on digits 0.2 % off in the median, at most
    2 % where ARM is over five times its floor. hist and literal need the data.

    The floor is the mean over `draws` of the same distance between two samples of the source, of
    the source's and the target's sizes: what no shift at all would give. It is not subtracted.

    Args:
        variant: exact, raw, hist or literal.
        bins: of a histogram; hist and literal only.
        draws: resamplings for the floor; 0 for none.

    Raises:
        FedpactError: hist or literal without the source's data; a card of another model.

    References:
        Sangarya, Bradford, Kim, arXiv 2405.09600 (ARM).
    """

    variant: str = "exact"
    bins: int = 32
    draws: int = 4

    forecasts = COST
    needs_source = True
    higher_is_better = False
    needs_labels = False

    def __post_init__(self) -> None:
        chosen_word("variant", self.variant, VARIANTS)
        for name, least in (("bins", 2), ("draws", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise FedpactError(
                    f"measure.{name} is {value!r}; legal is a whole number >= {least}. Set "
                    f"measure.{name}={'32' if name == 'bins' else '4'}."
                )

    @property
    def name(self) -> str:
        return "arm" if self.variant == "exact" else f"arm_{self.variant}"

    def measure(
        self, model: nn.Module, source: Source, target: Target, rng: np.random.Generator
    ) -> tuple[float, Mapping[str, float], float | None]:
        seen = look(model, target.features, rng)
        new = {layer: np.sort(values, axis=0) for layer, values in seen.layers.items()}
        size = len(seen.rows)
        if source.features is None:
            if self.variant not in ("exact", "raw"):
                raise FedpactError(
                    f"variant={self.variant} compares samples, and the source has a profile card "
                    "only. Use variant=exact or raw, or give the source's features."
                )
            _same_layers(source.card, new)
            found = {k: self._by_card(source.card, k, v) for k, v in new.items()}
            floors = [self._card_floor(source.card, size, rng) for _ in range(self.draws)]
        else:
            base = look(model, source.features, rng)
            old = {layer: np.sort(values, axis=0) for layer, values in base.layers.items()}
            distance = self._distance()
            found = {layer: distance(old[layer], new[layer]) for layer in new}
            floors = [_floor(distance, old, size, rng) for _ in range(self.draws)]
        layers = {layer: value for layer, value in found.items() if value is not None}
        if not layers:
            raise FedpactError(
                "Every filter of the model says the same of each of the source's cases, so "
                "deviations are no scale. Use variant=raw, or another model."
            )
        return _mean(layers), layers, float(np.mean(floors)) if floors else None

    def _distance(self) -> Distance:
        if self.variant == "hist":
            return lambda old, new: _shared_bins(old, new, self.bins)
        if self.variant == "literal":
            return lambda old, new: _heights(old, new, self.bins)
        return _scaled if self.variant == "exact" else _unscaled

    def _by_card(self, card: Profile, layer: str, new: Array) -> float | None:
        old = card.quantiles[layer].astype(np.float64)
        distances = SHARES @ np.abs(old - quantiles(new, LEVELS))
        return self._scale(card, layer, distances, _biggest(new))

    def _scale(self, card: Profile, layer: str, distances: Array, new: Array) -> float | None:
        if self.variant == "raw":
            return float(distances.mean())
        deviations = card.deviations[layer].astype(np.float64)
        return _ratio(distances, deviations, _biggest(card.quantiles[layer]), new)

    def _card_floor(self, card: Profile, size: int, rng: np.random.Generator) -> float:
        """Both samples from the card's own quantiles, joined by straight lines."""
        old, new = (
            quantiles(np.sort(rng.random((n, 1)), axis=0), LEVELS)[:, 0]
            for n in (min(card.cases, MOST), size)  # a card's count is its maker's word
        )
        layers = {}
        for layer, values in card.quantiles.items():
            columns = np.stack(
                [np.interp(old, LEVELS, q) - np.interp(new, LEVELS, q) for q in values.T], axis=1
            )
            layers[layer] = self._scale(card, layer, SHARES @ np.abs(columns), _biggest(values))
        return _mean(layers)


def w1(old: Array, new: Array) -> Array:
    """W1 a filter, (filters,), between sorted columns (n, filters) and (m, filters); exact.

    >>> w1(np.array([[0.0], [1.0]]), np.array([[0.0], [1.0], [2.0]]))
    array([0.5])
    """
    n, m = len(old), len(new)
    if n == m:
        equal: Array = np.abs(old - new).mean(axis=0, dtype=np.float64)
        return equal
    # Both quantile functions are steps; between two edges (in units of 1 / (n m)) neither changes.
    edges = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    starts, widths = edges[:-1], np.diff(edges) / (n * m)
    distances: Array = widths @ np.abs(old[starts // m] - new[starts // n])
    return distances


def _scaled(old: Array, new: Array) -> float | None:
    return _ratio(w1(old, new), old.std(axis=0, dtype=np.float64), _biggest(old), _biggest(new))


def _biggest(ordered: Array) -> Array:
    """Largest size a filter, (filters,), of sorted columns."""
    found: Array = np.maximum(np.abs(ordered[0]), np.abs(ordered[-1])).astype(np.float64)
    return found


def _unscaled(old: Array, new: Array) -> float:
    return float(w1(old, new).mean())


def _ratio(distances: Array, deviations: Array, old: Array, new: Array) -> float | None:
    """Mean over the filters that vary on the source, by more than float32 rounds.

    No deviation counts as less than a millionth of the firm's own outputs, so that no filter, and
    no card that makes deviations up, says more than two million.

    Args:
        old, new: largest output of each filter for the source and the target.
    """
    vary = deviations > ROUNDING * old
    scale = np.maximum(deviations, ROUNDING * new)
    return float(np.mean(distances[vary] / scale[vary])) if vary.any() else None


def _shared_bins(old: Array, new: Array, bins: int) -> float:
    low = np.minimum(old[0], new[0])
    high = np.maximum(old[-1], new[-1])
    p, q = (_histogram(values, low, high, bins) for values in (old, new))
    return earth_mover(p, q)


def _heights(old: Array, new: Array, bins: int) -> float:
    p, q = (_histogram(values, values[0], values[-1], bins) for values in (old, new))
    return of_heights(p, q)


def earth_mover(p: Array, q: Array) -> float:
    """Earth mover's distance of two histograms (bins,), whose bins are at (i + 1/2) / bins.

    >>> earth_mover(np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0, 0.0]))
    0.5
    """
    return float(np.abs(np.cumsum(p - q)).sum() / len(p))


def of_heights(p: Array, q: Array) -> float:
    """W1 of the heights of two histograms (bins,), as if they were samples.

    >>> of_heights(np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.2, 0.7]))
    0.0
    """
    return float(np.abs(np.sort(p) - np.sort(q)).mean())


def _histogram(values: Array, low: Array, high: Array, bins: int) -> Array:
    """Shares (bins,), mean over the filters; `low` and `high` are the edges a filter."""
    spread = np.where(high > low, high - low, 1)
    places = np.minimum((values - low) / spread * bins, bins - 1).astype(int)
    shares: Array = np.bincount(places.ravel(), minlength=bins) / values.size
    return shares


def _floor(
    distance: Distance, old: Mapping[str, Array], size: int, rng: np.random.Generator
) -> float:
    """The distance of two samples of the source, of its own and the target's size.

    Ranks are drawn, the same for every filter: sorted ranks pick sorted columns.
    """
    count = len(next(iter(old.values())))
    one, two = (np.sort(rng.integers(0, count, n)) for n in (count, size))
    return _mean({k: distance(v[one], v[two]) for k, v in old.items()})


def _mean(layers: Mapping[str, float | None]) -> float:
    values = [value for value in layers.values() if value is not None]
    return float(np.mean(values)) if values else 0.0


def _same_layers(card: Profile, seen: Mapping[str, Array]) -> None:
    told = {layer: values.shape[1] for layer, values in card.quantiles.items()}
    has = {layer: values.shape[1] for layer, values in seen.items()}
    if told != has:
        raise FedpactError(
            f"The profile card is of layers {told}, the model has {has} (name: filters). Use the "
            "card that came with this model, or take it again with Profile.of."
        )
