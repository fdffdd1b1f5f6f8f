"""GDEI against its golden vector, and the rules that end a training."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.backbones.logistic import Logistic
from parties.exchange import FedpactError
from parties.reuse.gdei import StepRecord, course, efficiency, gains_a_joule, step_gains
from parties.stopping import Stopping
from parties.stopping.gdei_plateau import GdeiPlateau
from parties.stopping.never import Never
from parties.stopping.patience import Patience
from parties.stopping.prechelt import Prechelt
from parties.stopping.relative_gain import RelativeGain
from parties.training import Training

GOLDEN = json.loads((Path(__file__).parent / "golden" / "gdei.json").read_text())
LOSSES = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=30)


def test_the_golden_vector_comes_out() -> None:
    np.testing.assert_allclose(efficiency(GOLDEN["loss"]), GOLDEN["E"], rtol=0, atol=1e-6)


@given(LOSSES)
def test_efficiency_is_between_0_and_99_and_follows_the_formula(losses: list[float]) -> None:
    found = efficiency(losses)
    assert len(found) == len(losses) - 1
    assert np.all((found >= 0) & (found <= 99))
    first = losses[0]
    for k in range(1, len(losses)):
        p, d = (first - losses[k]) / first, abs(losses[k - 1] - losses[k])
        assert found[k - 1] == 100 - min(100, max(1, 100 * p / (1 + math.log(1 + d**2))))


@given(LOSSES, st.floats(0.01, 100))
def test_scale_free_efficiency_does_not_depend_on_the_losses_unit(
    losses: list[float], unit: float
) -> None:
    scaled = efficiency([unit * v for v in losses], scale_free=True)
    np.testing.assert_allclose(scaled, efficiency(losses, scale_free=True), atol=1e-6)


def test_a_rescaled_loss_moves_the_published_efficiency_by_tens_of_points() -> None:
    losses = [1.0, 0.5, 0.3]
    moved = np.abs(efficiency(losses) - efficiency([30 * v for v in losses]))
    assert moved.max() > 30


def test_for_small_steps_it_is_the_share_of_the_first_loss_that_is_left() -> None:
    losses = np.linspace(2.0, 1.0, 2000)
    np.testing.assert_allclose(efficiency(losses)[50:], 100 * losses[51:] / 2, atol=0.01)


@pytest.mark.parametrize(
    ("losses", "what"),
    [
        ([1.0, 1.0, 1.0], "stuck"),
        ([1.0, 2.0, 5.0], "diverged"),
        ([1.0, 0.5, math.nan], "diverged"),
        ([1.0, 0.5, math.inf], "diverged"),
    ],
)
def test_stuck_and_diverged_runs_read_99_alike_and_are_told_apart(
    losses: list[float], what: str
) -> None:
    assert efficiency(losses)[-1] == 99
    assert course(losses) == what


@pytest.mark.parametrize("first", [0.0, -1.0, math.nan, math.inf])
def test_without_a_first_loss_above_0_it_is_undefined(first: float) -> None:
    assert np.all(np.isnan(efficiency([first, 1.0, 0.5])))
    assert course([first, 1.0]) == "undefined"


def test_one_loss_has_no_efficiency() -> None:
    assert len(efficiency([1.0])) == 0
    assert course([]) == "undefined"


def test_gains_are_differences_over_what_they_cost() -> None:
    np.testing.assert_allclose(step_gains([2.0, 1.0, 1.5, math.nan]), [0.5, -0.5, np.nan])
    np.testing.assert_allclose(gains_a_joule([2.0, 1.0, 0.5], [9.0, 4.0, 0.0]), [0.25, np.nan])
    with pytest.raises(FedpactError, match="2 losses and 1 amounts"):
        gains_a_joule([1.0, 2.0], [1.0])


# --------------------------------------------------------------------------------------- the rules


def stopped_at(rule: Stopping, losses: Sequence[float], validation: Sequence[float] = ()) -> int:
    """The epoch, from 1, at which a rule stops; 0 if it never does."""
    for n in range(1, len(losses) + 1):
        if rule.stops(losses[:n], validation[:n]):
            return n
    return 0


FALLING = [1 / n for n in range(1, 40)]
FLAT = [3.0, 2.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_each_rule_stops_where_its_definition_says() -> None:
    assert stopped_at(Never(), FLAT) == 0
    # The gains of epochs 5, 6 and 7 are 0.
    assert stopped_at(RelativeGain(least=1e-3, times=3), FLAT) == 7
    assert stopped_at(RelativeGain(least=0, times=1), [1.0, 0.9, 0.8]) == 0
    # E jumps once more at epoch 5, since the step to it is smaller: 83.7 after 1 + ln 1.25, then 0.
    assert stopped_at(GdeiPlateau(plateau=0.1, times=3), FLAT) == 8
    assert stopped_at(Patience(epochs=2), FLAT, [3, 2, 1, 1.1, 1.2, 0.1]) == 5
    assert stopped_at(Patience(epochs=2, least=0.5), FLAT, [3, 2, 1.9, 1.8, 1.7]) == 4
    # GL: 100 (1.04 / 1 - 1) = 4 does not exceed 5, 6 does.
    assert stopped_at(Prechelt("GL", alpha=5), FLAT, [2, 1, 1.04, 1.06]) == 4
    # PQ looks at the end of strips of 2; GL = 50, P = 1000 (.5 / (2 * .2) - 1) = 250: .2 <= alpha.
    falling = [0.9, 0.8, 0.3, 0.2]
    assert stopped_at(Prechelt("PQ", alpha=0.3, strip=2), falling, [1, 1, 1, 1.5]) == 0
    assert stopped_at(Prechelt("PQ", alpha=0.1, strip=2), falling, [1, 1, 1, 1.5]) == 4
    # UP: the ends of strips are 1, 2, 3: two rises.
    assert stopped_at(Prechelt("UP", strip=2, times=2), [1.0] * 8, [9, 1, 9, 2, 9, 3, 9, 9]) == 6


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_training_that_is_not_finite_is_stopped(bad: float) -> None:
    losses = [1.0, 0.5, *[bad] * 8]
    assert stopped_at(RelativeGain(times=3), losses) == 5
    assert stopped_at(GdeiPlateau(times=3), losses) == 6


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_validation_loss_that_is_not_finite_is_worse_than_any(bad: float) -> None:
    flat = [1.0] * 8
    for criterion in ("GL", "PQ", "UP"):
        rule = Prechelt(criterion, strip=2)
        assert stopped_at(rule, flat, [1, 0.9, 0.8, 0.7, bad, bad, bad, bad]) == 5
        assert not rule.stops(flat[:4], [bad, 0.9, 0.8, 0.7])
    assert stopped_at(Patience(epochs=2), flat, [1, bad, bad, bad]) == 3
    # One early slip does not stop a run that improves since; a run that never was finite stops.
    assert stopped_at(Patience(epochs=2), flat, [bad, 1, 0.9, 0.8]) == 0
    assert stopped_at(Patience(epochs=2), flat, [bad, bad, 3, 2]) == 0
    assert stopped_at(Patience(epochs=2), flat, [bad] * 4) == 3


def test_a_training_loss_of_0_is_endless_progress_and_only_0_is_none() -> None:
    rule = Prechelt("PQ", alpha=0.1, strip=2)
    rising = [1, 1, 1, 1.5]
    assert stopped_at(rule, [0.9, 0.8, 0.3, 0.0], rising) == 0
    assert stopped_at(rule, [0.0, 0.0, 0.0, 0.0], rising) == 4


@pytest.mark.parametrize("first", [math.nan, math.inf, 0.0])
def test_a_training_without_a_first_loss_above_0_is_stopped(first: float) -> None:
    assert stopped_at(GdeiPlateau(times=3), [first, 1.0, 0.9, 0.8, 0.7, 0.6]) == 5


@given(LOSSES)
def test_a_rule_of_training_losses_needs_no_validation_and_never_fails(losses: list[float]) -> None:
    for rule in (Never(), RelativeGain(), GdeiPlateau()):
        assert not rule.needs_validation
        assert rule.stops(losses, ()) in (True, False)


@pytest.mark.parametrize(
    ("rule", "fields", "message"),
    [
        (RelativeGain, {"least": -1}, "stopping.least is -1; legal is a number >= 0"),
        (GdeiPlateau, {"times": 0}, "stopping.times is 0; legal is a whole number >= 1"),
        (Patience, {"epochs": True}, "stopping.epochs is True"),
        (Prechelt, {"criterion": "XX"}, "legal are GL, PQ, UP"),
    ],
)
def test_what_a_rule_cannot_take_is_said(rule: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(FedpactError, match=message):
        rule(**fields)


# ------------------------------------------------------------------------------------- in training


def easy() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 3)).astype(np.float32)
    return features, (features[:, 0] > 0).astype(np.int64)


def fitted(training: Training, **more: Any) -> tuple[float, ...]:
    module = Logistic().build(3, 2, 0)
    return training.fit(module, *easy(), seed=0, **more)


def test_a_rule_ends_a_training_early_and_leaves_the_epochs_before_as_they_were() -> None:
    whole = Training(epochs=60, schedule="constant", batch_size=50)
    losses = fitted(whole)
    cut = fitted(replace(whole, stopping=RelativeGain(least=0.01, times=2)))
    assert 3 <= len(cut) < 60
    assert losses[: len(cut)] == cut
    assert RelativeGain(least=0.01, times=2).stops(cut, ())
    assert not RelativeGain(least=0.01, times=2).stops(cut[:-1], ())


def test_a_rule_of_validation_watches_examples_that_are_not_trained_on() -> None:
    features, labels = easy()
    wrong = (features, 1 - labels)  # the better the fit, the worse on these
    stopping = Training(epochs=40, schedule="constant", stopping=Patience(epochs=2))
    assert len(fitted(stopping, validation=wrong)) == 3
    assert len(fitted(stopping, validation=(features, labels))) == 40
    with pytest.raises(FedpactError, match="Keep some back"):
        fitted(stopping)


def test_every_step_is_recorded_where_it_is_watched_and_nothing_changes() -> None:
    record = StepRecord()
    training = Training(epochs=3, batch_size=64)
    assert fitted(training, watch=record) == fitted(training)
    assert len(record.losses) == len(record.seconds) == 3 * 4
    assert all(s >= 0 for s in record.seconds)
    assert len(record.efficiency) == 11
    assert record.course == "learning"
