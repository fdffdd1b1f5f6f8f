"""The campaign on measures of reuse: its table, its history, one tiny run, one that was killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from parties.exchange import FedpactError
from parties.reuse.arm import Arm
from parties.reuse.leep import Leep
from parties.reuse.profile import Profile
from simulations.campaigns import arm_digits
from simulations.campaigns.arm_digits import COLUMNS, MEASURES, ArmDigits
from simulations.campaigns.arm_table import correlations, facts_of, table_of
from simulations.campaigns.offered import Parts
from simulations.campaigns.spoiled import SHIFTS
from tests.checks import Told
from tests.test_report import Page

TINY = (
    "experiment=arm_digits",
    "campaign.models=[mlp-0,deep-1]",
    "campaign.shifts=[noise_0.3,rotation_180]",
    "campaign.longest=2",
    "campaign.source_epochs=3",
    "campaign.resamples=20",
    "progress=none",
)


def a_history(pairs: int = 40) -> pd.DataFrame:
    """Made-up pairs of four models in which `arm` goes with the epochs and `leep` against them."""
    rng = np.random.default_rng(0)
    epochs = rng.integers(0, 40, pairs) / 4
    return pd.DataFrame(
        {
            "case": [f"case-{i}" for i in range(pairs)],
            "model": [f"cnn-{i % 4}" for i in range(pairs)],
            "shift": ["rotation_180" if i % 10 == 0 else "noise_0.1" for i in range(pairs)],
            "kind": "noise",
            "epochs": epochs,
            "scratch_epochs": np.where(epochs > 9, np.nan, epochs + 1),
            "scratch_accuracy": np.where(np.arange(pairs) % 4 == 3, 0.5, 0.9),
            "ceiling": 1 - epochs / 100,
            "cpu_seconds_epoch": 0.02,
            "card_bytes": 1000,
            "floor": 0.1,
            "arm": epochs + rng.normal(size=pairs) + 5,
            "arm_card": epochs + 5,
            "leep": -np.exp(epochs),
            "arm_ms": 5.0,
            "leep_ms": 1.0,
        }
    )


def curves_of(history: pd.DataFrame) -> pd.DataFrame:
    """Readings that are .04 below the ceiling from an epoch on, and at it 5 epochs later."""
    points = np.arange(81) / 4
    since = points[None, :] - history["epochs"].to_numpy()[:, None]
    told = pd.DataFrame(np.where(since >= 5, 0.9, np.where(since >= 0, 0.86, 0.2)), columns=points)
    told.insert(0, "case", history["case"])
    told.insert(1, "run", "kept")
    return told.assign(cpu_seconds_epoch=0.02)


def test_coefficients_are_scipys_also_among_ties() -> None:
    rng = np.random.default_rng(0)
    values, outcome = rng.integers(0, 5, (30, 3)).astype(float), rng.integers(0, 9, 30) / 4
    found = correlations(values, outcome)
    for column, (rank, linear) in zip(values.T, found.T, strict=True):
        assert rank == pytest.approx(stats.spearmanr(column, outcome).statistic)
        assert linear == pytest.approx(stats.pearsonr(column, outcome).statistic)
    assert np.isnan(correlations(np.ones((4, 1)), np.arange(4.0))).all()


def test_the_table_turns_measures_the_way_of_epochs_and_takes_models_as_units() -> None:
    history = a_history()
    table = table_of(history, curves_of(history), {"arm": Arm(), "leep": Leep()}, 200).set_index(
        "measure"
    )
    assert table.loc["leep", "all_spearman"] == pytest.approx(1)
    assert table.loc["leep", "ceiling"] == pytest.approx(-1)
    assert table.loc["leep", "within"] == pytest.approx(1)
    expected = stats.spearmanr(history["arm"], history["epochs"]).statistic
    assert table.loc["arm", "all_spearman"] == pytest.approx(expected)
    inner = history[history["scratch_accuracy"] >= 0.85]
    expected = stats.spearmanr(inner["arm"], inner["epochs"]).statistic
    assert table.loc["arm", "recoverable_spearman"] == pytest.approx(expected)
    low, high = (table.loc["arm", f"recoverable_spearman_{end}"] for end in ("low", "high"))
    assert low < expected < high
    assert table.loc["arm", "epoch_share"] == pytest.approx(5 / 20)
    assert list(table["labels"]) == [False, True]
    assert table.loc["arm", "at_0.05"] == pytest.approx(expected)


def test_a_pair_whose_retraining_never_got_going_is_told_and_not_recoverable() -> None:
    history = a_history()
    good = history[history["scratch_accuracy"] >= 0.85]
    dead = history.copy()
    row = int(good["epochs"].idxmax())
    dead.loc[row, ["ceiling", "epochs"]] = 0.1, 0.0
    expected = stats.spearmanr(*good.drop(row)[["arm", "epochs"]].to_numpy().T).statistic
    found = table_of(dead, curves_of(dead), {"arm": Arm()}, 20).iloc[0]
    assert found["recoverable_spearman"] == pytest.approx(expected)
    told = f"Where a new model reaches 0.85, retraining never did for case-{row}:"
    assert told in " ".join(facts_of(dead))
    assert "retraining never did" not in " ".join(facts_of(history))


def test_a_margin_below_the_ceiling_decides_when_a_model_counts_as_retrained() -> None:
    history = a_history()
    curves = curves_of(history)
    # All get to .86 when they should; to .9 they get in the opposite order.
    later = [c for c in curves.columns if isinstance(c, float)]
    swift = 20 - history["epochs"].to_numpy()[:, None]
    at_last = np.array(later)[None, :] >= swift
    curves[later] = np.where(at_last, 0.9, np.minimum(curves[later], 0.86))
    leep = table_of(history, curves, {"leep": Leep()}, 20).iloc[0]
    assert leep["at_0.05"] > 0.99
    assert leep["at_0.02"] < -0.99


def test_the_facts_count_pairs_where_a_new_model_never_got_there() -> None:
    said = " ".join(facts_of(a_history()))
    never = np.mean(a_history()["epochs"] > 9)
    assert "fewer than a new model in 100 % of the pairs" in said
    assert f"in {100 * never:.0f} % the new model never got as far" in said
    assert "Half a turn (180 degrees): ARM is" in said


@pytest.mark.parametrize("name", SHIFTS)
def test_every_spoiled_image_is_another_and_the_same_in_every_call(name: str) -> None:
    ids, plain, _ = Parts.of(0).firm
    ids, plain = ids[:20], plain[:20]
    before, see = plain.copy(), SHIFTS[name].see
    seen = see(plain, ids, 0)
    assert (seen.shape, seen.dtype) == (plain.shape, np.float32)
    np.testing.assert_array_equal(plain, before)
    np.testing.assert_array_equal(seen[[4, 1]], see(plain[[4, 1]], ids[[4, 1]], 0))
    assert not np.allclose(seen, plain)


def test_salt_and_occlusion_are_as_strong_as_they_say() -> None:
    grey, ids = np.full((1000, 64), 0.5, np.float32), np.arange(1000)
    salted = SHIFTS["salt_0.3"].see(grey, ids, 0)
    assert np.mean(salted == 0) == pytest.approx(0.15, abs=0.01)
    assert np.mean(salted == 1) == pytest.approx(0.15, abs=0.01)
    hidden = SHIFTS["occlusion_3"].see(grey, ids, 0).reshape(-1, 8, 8) == 0
    assert np.all(hidden.sum((1, 2)) == 9)
    assert np.all(hidden.any(1).sum(1) == 3)
    assert np.all(hidden.any(0))


def test_the_source_the_firm_and_its_held_out_part_share_no_digit() -> None:
    parts = Parts.of(1)
    assert len(parts.source[0]) + len(parts.firm[0]) + len(parts.held_out[0]) == 1797
    assert not set(parts.firm[0]) & set(parts.held_out[0])
    assert 390 <= len(parts.held_out[0]) <= 410


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"models": "mlp-0"}, "legal is a list of different names"),
        ({"models": ("cnn-0", "cnn-0")}, "different names"),
        ({"models": ("vgg-0",)}, r"has 'vgg-0'; legal are mlp, cnn, deep"),
        ({"models": ("cnn",)}, "with a seed, such as cnn-0"),
        ({"shifts": ("fog",)}, r"has 'fog'; legal are noise_0.1"),
        ({"longest": 0}, "campaign.longest is 0"),
        ({"margin": 1.0}, "campaign.margin is 1.0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
    ],
)
def test_a_campaign_that_cannot_be_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(FedpactError, match=problem):
        replace(ArmDigits(), **changes)


@pytest.fixture
def run(here: Callable[..., Told], tmp_path: Path) -> Path:
    done = here(*TINY, "run_dir=run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "run")
    assert "arm_literal" in done.stdout
    return tmp_path / "run"


def test_a_killed_campaign_goes_on_and_measures_nothing_twice(
    run: Path, here: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    history = pd.read_csv(run / "history.csv")
    assert list(history.columns) == COLUMNS
    assert list(history["case"]) == [
        f"{model}-{shift}"
        for model in ("mlp-0", "deep-1")
        for shift in ("noise_0.3", "rotation_180")
    ]
    assert history[[*MEASURES]].notna().all(axis=None)
    assert (history["epochs"] <= 2).all()
    curves = pd.read_csv(run / "curves.csv", index_col=["case", "run"])
    assert curves.shape == (8, 10)
    readings = curves.drop(columns="cpu_seconds_epoch")
    kept = readings.xs("kept", level="run").loc[history["case"]]
    np.testing.assert_allclose(kept.max(axis=1), history["ceiling"], atol=1e-4)
    there = (kept.to_numpy() >= history[["ceiling"]].to_numpy() - 0.0201).argmax(1) / 4
    np.testing.assert_array_equal(there, history["epochs"])
    assert (history["ceiling"] >= history["zero_shot_accuracy"]).all()
    assert len(pd.read_csv(run / "table.csv")) == len(MEASURES)
    card = Profile.load(run / "cards" / "deep-1.safetensors")
    assert card.size == history["card_bytes"].iloc[-1]
    assert list(card.quantiles) == ["1", "3", "6", "8"]
    page = Page(run / "report.html")
    assert [a["id"] for tag, a in page.tags if tag == "table"] == ["measures", "margins"]
    assert all(name in page.tables[0] for name in MEASURES)
    assert not [a for _, a in page.tags if "src" in a or "href" in a]

    # Killed in the third row, then the curves of the third pair's second run: cut off as well.
    whole = (run / "history.csv").read_text().splitlines(keepends=True)
    (run / "history.csv").write_text("".join(whole[:3]) + whole[3][:60])
    lines = (run / "curves.csv").read_text().splitlines(keepends=True)
    (run / "curves.csv").write_text("".join(lines[:6]) + lines[6][:40])
    judged: list[str] = []
    curve = arm_digits.curve

    def counted(*parts: Any) -> Any:
        judged.append("curve")
        return curve(*parts)

    monkeypatch.setattr(arm_digits, "curve", counted)
    again = here(f"resume={run}")
    assert again.returncode == 0, again.stderr
    assert len(judged) == 3
    assert (run / "curves.csv").read_text().splitlines(keepends=True)[:6] == lines[:6]
    after = (run / "history.csv").read_text().splitlines(keepends=True)
    assert after[:3] == whole[:3]
    again_curves = pd.read_csv(run / "curves.csv", index_col=["case", "run"])
    pd.testing.assert_frame_equal(again_curves.drop(columns="cpu_seconds_epoch"), readings)
    timed = [c for c in COLUMNS if c.endswith("_ms") or c == "cpu_seconds_epoch"]
    pd.testing.assert_frame_equal(
        pd.read_csv(run / "history.csv").drop(columns=timed), history.drop(columns=timed)
    )
    judged.clear()
    (run / "history.csv").unlink()  # the measures are taken again, and nothing is trained
    assert here(f"resume={run}").returncode == 0
    assert not judged
    pd.testing.assert_frame_equal(
        pd.read_csv(run / "history.csv").drop(columns=timed), history.drop(columns=timed)
    )


def test_a_dry_run_tells_the_plan_and_measures_nothing(
    here: Callable[..., Told], tmp_path: Path
) -> None:
    done = here("experiment=arm_digits", "dry_run=true")
    assert done.returncode == 0
    assert "9 models x 20 shifts x 17 measures" in done.stdout
    assert not list(tmp_path.iterdir())
