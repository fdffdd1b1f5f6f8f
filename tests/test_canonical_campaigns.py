"""The campaigns on canonicalizers: tiny runs, what their tables say, and one that was killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from parties.canonicalize.groups import Group
from parties.canonicalize.neighbours import Neighbours
from parties.exchange import FedpactError
from parties.reuse.judge import AS_IS, Judge
from parties.reuse.zero_shot import ZeroShot
from simulations.campaigns import canonical_arm
from simulations.campaigns.canonical_arm import CanonicalArm, framed
from simulations.campaigns.canonical_arm_table import facts_of as facts_of_arm
from simulations.campaigns.canonical_arm_table import table_of as table_of_arm
from simulations.campaigns.canonical_fashion import (
    COLUMNS,
    COSTLY,
    METHODS,
    Averaged,
    CanonicalFashion,
    classes,
)
from simulations.campaigns.canonical_table import facts_of, table_of
from tests.checks import Told
from tests.test_report import Page

FASHION = (
    "experiment=canonical_fashion",
    "campaign.data=digits",
    "campaign.images=300",
    "campaign.tests=60",
    "campaign.seeds=2",
    "campaign.counts=[50]",
    "campaign.learning.epochs=6",
    "campaign.training.epochs=2",
    "progress=none",
)
ARM = (
    "experiment=canonical_arm",
    "campaign.models=[cnn-0]",
    "campaign.shifts=[upright,rotation_180]",
    "campaign.canonicalizer.training.epochs=12",
    "campaign.canonicalizer.group.turns=4",
    "campaign.canonicalizer.refine=0",
    "campaign.longest=2",
    "campaign.source_epochs=12",
    "progress=none",
)
TIMED = ["train_seconds", "overhead"]


# ------------------------------------------------------------------------- canonical_fashion


def some_rows() -> pd.DataFrame:
    """Two seeds: C4 does what was asked for, C8 falls short, and costs half of the tuning."""
    told = []
    for seed, off in enumerate((-0.01, 0.01)):
        for group, lost, seconds in (("C4", 0.01, 10.0), ("C8", 0.05, 50.0)):
            for method, turned, cost in (
                ("alone", 0.25, 0.0),
                ("scalar", 0.9 - lost, seconds),
                ("tuned_12", 0.87, 100.0),
            ):
                told.append(
                    {
                        **dict.fromkeys(COLUMNS, np.nan),
                        "part": "poses",
                        "seed": seed,
                        "group": group,
                        "method": method,
                        "images": 1000,
                        "labels": method == "tuned_12",
                        "upright": 0.9 + off,
                        "turned": turned + off,
                        "train_seconds": cost,
                    }
                )
    return pd.DataFrame(told).astype({"variant": "string"})


def test_the_table_has_means_and_standard_deviations_over_seeds() -> None:
    table = table_of(some_rows()).set_index(["group", "method"])
    row = table.loc[("C4", "scalar")]
    assert row["turned"] == pytest.approx(0.89)
    assert row["turned_sd"] == pytest.approx(0.02 / 2**0.5)
    assert (row["seeds"], row["images"], row["labels"]) == (2, 1000, False)
    assert table["labels"].sum() == 2
    alone = table_of(some_rows().query("seed == 0"))
    assert alone["turned_sd"].isna().all()


def test_the_facts_say_which_bar_is_met_and_which_is_missed() -> None:
    bars, fifths, eighth_bar, eighths = facts_of(table_of(some_rows()))
    assert "C4: behind scalar, turned images are read 1.0 points worse" in bars
    assert bars.endswith("at most 1.5 points and 15 s: met.")
    assert "C4: that is +2.0 points over tuned_12 (2 of the seeds) on turned images" in fifths
    assert "at 0.10 of its CPU seconds" in fifths
    assert fifths.endswith(": met.")
    assert "C8: behind scalar, turned images are read 5.0 points worse" in eighth_bar
    assert eighth_bar.endswith("at most 2.5 points: missed.")
    assert "-2.0 points over tuned_12" in eighths
    assert eighths.endswith(": missed.")


def test_averaged_probabilities_are_the_same_in_every_quarter_turn() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(36, 5))
    images = torch.rand(7, 1, 6, 6)
    averaged = Averaged(model, Group(4))
    told = averaged(images.flatten(1))
    torch.testing.assert_close(told.exp().sum(1), torch.ones(7))
    by_hand = sum(model(images.rot90(k, (-2, -1)).flatten(1)).softmax(1) for k in range(4)) / 4
    torch.testing.assert_close(told.exp(), by_hand)
    torch.testing.assert_close(averaged(images.rot90(1, (-2, -1)).flatten(1)), told)
    np.testing.assert_array_equal(classes(averaged, images), by_hand.argmax(1).numpy())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"data": "mnist"}, "campaign.data is 'mnist'; legal are fashion, digits"),
        ({"images": 0}, "campaign.images is 0"),
        ({"costly_seeds": -1}, "campaign.costly_seeds is -1"),
        ({"groups": ()}, "campaign.groups is"),
        ({"groups": (1,)}, "which turns nothing"),
        ({"groups": (400,)}, "group.turns is 400"),
        ({"methods": "scalar"}, "campaign.methods is 'scalar'"),
        ({"methods": ("magic",)}, "has 'magic'; legal are alone, scalar"),
        ({"counts": (10240,)}, "legal are 2 to 10239"),
    ],
)
def test_a_campaign_of_methods_that_cannot_be_is_refused(
    changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(FedpactError, match=problem):
        replace(CanonicalFashion(), **changes)


def test_more_images_than_there_are_are_refused_before_anything_is_trained(
    here: Callable[..., Told], tmp_path: Path
) -> None:
    done = here(*FASHION, "campaign.images=5000", "dry_run=true")
    assert done.returncode == 2
    assert "campaign.images is 5000; digits has 1438. Set campaign.images=1438" in done.stderr
    done = here(*FASHION[:-1], "dry_run=true")
    assert "10 methods x C4, C8, and 1 numbers of images: 30 trainings" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_killed_campaign_of_methods_goes_on_and_trains_nothing_twice(
    here: Callable[..., Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    done = here(*FASHION, "run_dir=run")
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(run / "rows.csv")
    assert list(rows.columns) == COLUMNS
    poses = rows[rows["part"] == "poses"]
    cheap = [m for m in METHODS if m not in COSTLY]
    for seed, methods in ((0, list(METHODS)), (1, cheap)):
        for group in ("C4", "C8"):
            here_now = poses[(poses["seed"] == seed) & (poses["group"] == group)]
            assert list(here_now["method"]) == methods
    exact = poses[(poses["group"] == "C4") & poses["method"].isin(("scalar", "cosine"))]
    assert (exact["flips"] == 0).all()
    np.testing.assert_array_equal(exact["upright"], exact["turned"])
    alone = poses[poses["method"] == "alone"]
    assert (alone["turned"] < alone["upright"] - 0.2).all()
    assert (alone["overhead"] == 1).all()
    scalar = exact[exact["method"] == "scalar"].set_index("seed")["turned"]
    assert (scalar > alone[alone["group"] == "C4"].set_index("seed")["turned"]).all()
    for seed, part in rows[rows["part"] == "abstain"].groupby("seed"):
        assert list(part["variant"]) == ["5%", "20%"]
        # Three of 60 are left out, then twelve (but for ties): parts of one accuracy.
        shares = np.array([0.05, 0.2])
        whole = shares * part["least"] + (1 - shares) * part["rest"]
        np.testing.assert_allclose(whole, scalar[int(str(seed))], atol=0.02)
    assert list(rows[rows["part"] == "angles"]["variant"]) == [
        *("refine=3", "24 angles", "72 angles", "24 angles, refine=2"),
        *("refine=3", "24 angles", "72 angles", "24 angles, refine=2"),
    ]
    assert list(rows[rows["part"] == "images"]["images"]) == [50, 50]

    table = pd.read_csv(run / "table.csv").query("part == 'poses'").set_index(["group", "method"])
    assert table.loc[("C4", "scalar"), "turned"] == pytest.approx(scalar.mean())
    assert table.loc[("C4", "tuned_12"), "seeds"] == 1
    page = Page(run / "report.html")
    assert "mathdefault" not in page.text
    ids = [a["id"] for tag, a in page.tags if tag == "table"]
    assert ids == ["C4", "C8", "angles", "abstain", "images"]
    assert all(method in page.tables[0] for method in METHODS)
    assert len(page.named("image")) == 5 * 3 * 2  # five images in three poses, and upright
    assert all(a["xlink:href"].startswith("data:image/png") for a in page.named("image"))
    assert "C4 scalar" in done.stdout

    # Killed in the second seed: two of its trainings are on disk.
    known = rows[(rows["seed"] == 0) | (rows["method"].isin(("alone", "scalar")))]
    known = known[(known["seed"] == 0) | ((known["group"] == "C4") & (known["images"] == 300))]
    known.to_csv(run / "rows.csv", index=False)
    measured: list[tuple[Any, ...]] = []
    measure = CanonicalFashion._measured

    def counted(campaign: CanonicalFashion, *parts: Any) -> Any:
        measured.append(parts[:4])
        return measure(campaign, *parts)

    monkeypatch.setattr(CanonicalFashion, "_measured", counted)
    kept = (run / "models" / "frozen_1.safetensors").stat().st_mtime_ns
    again = here(f"resume={run}")
    assert again.returncode == 0, again.stderr
    assert [unit[1:3] for unit in measured] == [
        (4, "cosine"),
        (4, "classifier"),
        *((8, method) for method in cheap),
        (4, "scalar"),
    ]
    assert {unit[0] for unit in measured} == {1}
    assert (run / "models" / "frozen_1.safetensors").stat().st_mtime_ns == kept
    after = pd.read_csv(run / "rows.csv")
    pd.testing.assert_frame_equal(after.drop(columns=TIMED), rows.drop(columns=TIMED))


# ------------------------------------------------------------------------------- canonical_arm


def some_cases() -> pd.DataFrame:
    """ARM sees a quarter and not the half turn; behind the canonicalizer all is well."""
    told = []
    for model, off in (("cnn-0", -0.02), ("mlp-0", 0.02)):
        for shift, arm in (("upright", 0.05), ("rotation_90", 0.6), ("rotation_180", 0.06)):
            for view in ("plain", "canonical"):
                well = view == "canonical" or shift == "upright"
                told.append(
                    {
                        "case": f"{model}-{shift}-{view}",
                        "model": model,
                        "shift": shift,
                        "view": view,
                        "arm": (0.05 if well else arm) + off,
                        "floor": 0.07,
                        "zero_shot_accuracy": (0.9 if well else 0.2) + off,
                        "ceiling": 0.95,
                        "epochs": 0.0 if well else 3.0,
                        "decision": "as_is" if well else "fine_tune",
                    }
                )
    return pd.DataFrame(told)


def test_the_table_of_views_has_means_and_counts_decisions() -> None:
    table = table_of_arm(some_cases()).set_index(["shift", "view"])
    assert len(table) == 6
    row = table.loc[("rotation_90", "plain")]
    assert row["arm"] == pytest.approx(0.6)
    assert row["arm_sd"] == pytest.approx(0.04 / 2**0.5)
    assert list(row[["models", "as_is", "fine_tune", "scratch"]]) == [2, 0, 2, 0]
    assert table.loc[("rotation_180", "canonical"), "as_is"] == 2


def test_the_facts_keep_half_a_turn_apart_from_turns_that_arm_sees() -> None:
    seen, half, upright = facts_of_arm(table_of_arm(some_cases()))
    assert seen.startswith("Turns that ARM sees: ARM 0.600 becomes 0.050 (floor 0.070)")
    assert half.startswith("Half a turn: ARM 0.060 becomes 0.050")
    assert "0.200 becomes 0.900, retraining 3.00 epochs becomes 0.00" in half
    assert half.endswith("as it is in 0, then 2 of 2 cases.")
    assert upright.endswith("as it is in 2, then 2 of 2 cases.")


def test_framed_digits_keep_their_pixels_inside_a_black_frame() -> None:
    images = framed(np.ones((3, 64), np.float32)).reshape(3, 16, 16)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images[:, 2:14, 2:14], 1)
    assert images.sum() == pytest.approx(3 * 144)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"models": ("vgg-0",)}, "has 'vgg-0'; legal are mlp, cnn, deep"),
        ({"models": ()}, "legal is a list of different names"),
        ({"shifts": ("fog",)}, "has 'fog'; legal are upright, noise_0.1"),
        ({"longest": 0}, "campaign.longest is 0"),
        ({"margin": 1.0}, "campaign.margin is 1.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        (
            {"canonicalizer": replace(canonical_arm._any_turn(), scorer=Neighbours(), refine=0)},
            "nothing that is trained",
        ),
    ],
)
def test_a_campaign_of_views_that_cannot_be_is_refused(
    changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(FedpactError, match=problem):
        replace(CanonicalArm(Judge((ZeroShot(),))), **changes)


@pytest.mark.long
def test_a_killed_campaign_of_views_goes_on_and_retrains_nothing_twice(
    here: Callable[..., Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    done = here(*ARM, "run_dir=run")
    assert done.returncode == 0, done.stderr
    cases = pd.read_csv(run / "cases.csv")
    assert list(cases.columns) == canonical_arm.COLUMNS
    found = cases.set_index(["shift", "view"])
    assert list(found.index) == [
        (shift, view) for shift in ("upright", "rotation_180") for view in ("plain", "canonical")
    ]
    assert found["decision"].isin(("as_is", "fine_tune", "scratch")).all()
    assert (found["ceiling"] >= found["zero_shot_accuracy"]).all()
    # ARM does not see half a turn, and the accuracy does; behind the canonicalizer it is the same
    # as upright, since half a turn only moves pixels.
    upright, half = found.loc[("upright", "plain")], found.loc[("rotation_180", "plain")]
    assert half["arm"] < 2 * half["floor"]
    assert half["zero_shot_accuracy"] < upright["zero_shot_accuracy"] - 0.3
    behind = found.xs("canonical", level="view")
    for name in ("arm", "zero_shot_accuracy"):
        assert behind.loc["rotation_180", name] == pytest.approx(
            behind.loc["upright", name], abs=0.01
        )
    assert behind.loc["rotation_180", "zero_shot_accuracy"] > half["zero_shot_accuracy"] + 0.3
    assert found.loc[("rotation_180", "canonical"), "decision"] == AS_IS
    assert len(pd.read_csv(run / "table.csv")) == 4
    page = Page(run / "report.html")
    assert [a["id"] for tag, a in page.tags if tag == "table"] == ["shifts"]
    assert "rotation_180" in page.tables[0]
    assert not [a for _, a in page.tags if "src" in a or "href" in a]
    assert "Half a turn: ARM" in done.stdout

    whole = (run / "cases.csv").read_text().splitlines(keepends=True)
    (run / "cases.csv").write_text("".join(whole[:3]) + whole[3][:40])  # killed in the third row
    trained: list[str] = []
    curve = canonical_arm.curve

    def counted(*parts: Any) -> Any:
        trained.append("curve")
        return curve(*parts)

    monkeypatch.setattr(canonical_arm, "curve", counted)
    again = here(f"resume={run}")
    assert again.returncode == 0, again.stderr
    assert len(trained) == 2
    assert (run / "cases.csv").read_text().splitlines(keepends=True)[:3] == whole[:3]
    pd.testing.assert_frame_equal(pd.read_csv(run / "cases.csv"), cases)


def test_a_dry_run_of_views_tells_the_plan(here: Callable[..., Told], tmp_path: Path) -> None:
    done = here("experiment=canonical_arm", "dry_run=true")
    assert done.returncode == 0
    assert "9 models x 6 shifts, plain and canonical; each retrained for 10" in done.stdout
    assert not list(tmp_path.iterdir())
