"""report.html: one safe file with the verdict first, for every kind of study."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from server.outcome import Outcome
from simulations.conclude import conclude
from simulations.engines import apps
from simulations.report import number, write_report
from simulations.results import RunFolder
from simulations.study import Study, study_of
from simulations.worth import worth
from tests.checks import (
    SMALL_HEART,
    SMALL_LOANS,
    config_of,
    contexts,
    hold_on,
    plain,
    run_config,
)
from tests.inline_grid import InlineGrid

LOADING = {"src", "href", "xlink:href", "srcset", "data", "action", "poster"}
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """What a browser would make of the page: tags, attributes, text and the words of each table."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.tables: list[str] = []
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))
        if "table" in self.open:
            self.tables[-1] += data

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(data for tag, data in self.texts if tag != "style").split())


def held(folder: Path, *overrides: str) -> tuple[Study, RunFolder, dict[str, Any]]:
    """A short real run, and its verdict."""
    config = run_config(folder, *overrides)
    run = RunFolder(folder)
    run.start(config_of(*overrides), False, {})
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    study = study_of(plain(*overrides))
    return study, run, conclude(study, run)


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, RunFolder, dict[str, Any]]:
    return held(tmp_path_factory.mktemp("loans"), *SMALL_LOANS)


@pytest.fixture(scope="module")
def heart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, RunFolder, dict[str, Any]]:
    return held(tmp_path_factory.mktemp("heart"), *SMALL_HEART)


@pytest.fixture(params=["loans", "heart"])
def finished(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def filed(
    folder: Path, config: dict[str, Any], first: Outcome, **facts: Any
) -> tuple[Study, RunFolder, dict[str, Any]]:
    """A study whose sessions all end like the first; the others also hold the facts."""
    study, run = study_of(config), RunFolder(folder)
    for case in study.cases():
        own = {"seed": case.seed, "contract": case.contract.name}
        more = {} if case.contract.name == "no_sharing" else facts
        run.file(Outcome(**{**vars(first), **own, **more}))
    return study, run, conclude(study, run)


def outcome(firms: list[str], bins: int = 2) -> Outcome:
    """A made-up session of two firms with twelve clients."""
    table = np.full((2, bins, bins), 1 / (2 * bins * bins))
    ids = np.arange(12)
    return Outcome(
        seed=0,
        contract="no_sharing",
        ids=dict.fromkeys(firms, ids),
        payoffs={name: np.linspace(-1, 1 + i, 12) for i, name in enumerate(firms)},
        predicted=dict.fromkeys(firms, 0.25),
        table=table,
        clients=np.arange(1000),
        belief=table,
    )


def renamed(names: list[str], *overrides: str) -> dict[str, Any]:
    """The small loans study with other names for its firms."""
    config: dict[str, Any] = plain(*SMALL_LOANS, *overrides)
    firms = list(config["parties"].values())
    config["parties"] = {n: {**firm, "name": n} for n, firm in zip(names, firms, strict=True)}
    return config


def test_the_page_loads_nothing_and_runs_nothing(finished: Any) -> None:
    page = Page(write_report(*finished))
    assert {tag for tag, _ in page.tags}.isdisjoint(
        {"script", "link", "img", "image", "iframe", "object", "embed", "base", "form"}
    )
    for _, attrs in page.tags:
        for name, value in attrs.items():
            assert name not in LOADING or value.startswith("#"), (name, value)
            assert not name.startswith("on")
    assert re.findall(r"url\((?!#)", page.source) == []
    assert "@import" not in page.source
    assert re.findall(r"https?://", page.source) == []
    policy = next(m for m in page.named("meta") if m.get("http-equiv"))
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_the_first_table_is_the_verdict_with_every_firm_and_contract(finished: Any) -> None:
    study, _, verdict = finished
    page = Page(write_report(*finished))
    assert page.named("table")[0]["id"] == "verdict"
    for name, contract in verdict["contracts"].items():
        assert name in page.tables[0]
        for firm, v in contract["firms"].items():
            assert firm in page.tables[0]
            assert v["reason"] in page.tables[0]
    decided = Counter(a["class"] for a in page.named("span") if a.get("class", "")[:5] == "mark ")
    signing = decided["mark signs"] + decided["mark refuses"]
    assert signing <= len(study.names) * len(study.contracts) <= signing + decided["mark undecided"]


def test_every_section_of_a_contest_is_there(loans: Any) -> None:
    study, run, verdict = loans
    page = Page(write_report(study, run, verdict))
    labels = [figure["aria-label"] for figure in page.named("figure")]
    for start in ("Payoff of lender_a", "Payoff of lender_b", "Training loss", "Measured against"):
        assert sum(label.startswith(start) for label in labels) == 1
    assert sum(label.startswith("Joint table") for label in labels) == 4
    assert "study.contracts" not in page.text
    assert "no_sharing, infer_sharing); where models are shared" in page.text
    assert "Play.rival.probs" in page.text
    assert "AUC, contested" in page.text
    assert "learning_rate: 0.1" in page.text
    for words in verdict["contracts"]["full_sharing"]["operator_sees"]:
        assert words in page.text


def test_the_money_that_would_mend_a_contract_is_shown(loans: Any) -> None:
    study, run, verdict = loans
    page = Page(write_report(study, run, verdict))
    assert page.named("table")[1]["id"] == "money"
    for name in ("train_sharing", "infer_sharing", "full_sharing"):
        contract = verdict["contracts"][name]
        assert name in page.tables[1]
        transfer, gains = contract["transfer"], [v["gain"] for v in contract["firms"].values()]
        assert transfer["exists"] == (-gains[0] <= gains[1])
        assert 0 <= contract["posterior"]["irpo"] <= contract["posterior"]["individually_rational"]
        if transfer["exists"]:
            assert number(transfer["nash"]) in page.tables[1]
            low, high = transfer["interval"]
            assert (low, high) == pytest.approx((-gains[0], gains[1]))


def test_the_end_of_training_is_gdeis_and_every_contract_of_a_kind_shares_a_row() -> None:
    steps = [("no_sharing", s, 0, e, v) for s in (0, 1) for e, v in enumerate((4.0, 2.0, 1.0))]
    steps += [("train_sharing", 0, r, 0, v) for r, v in enumerate((2.0, 3.0))]
    steps += [("full_sharing", *row[1:]) for row in steps if row[0] == "train_sharing"]
    columns = ["contract", "seed", "round", "epoch", "loss"]
    rounds = pd.DataFrame(steps, columns=columns).assign(firm="a")
    seconds = pd.DataFrame(
        [("no_sharing", "a", 5.0), ("no_sharing", "a", 7.0), ("train_sharing", "a", "nan")],
        columns=["contract", "firm", "joules"],
    )
    alone, shared = worth(rounds, seconds)
    assert alone["contracts"] == ["no_sharing"]
    assert alone["efficiency"] == pytest.approx(55.704, abs=1e-3)  # the doctest of `efficiency`
    assert (alone["first"], alone["last"], alone["step_gain"]) == (4, 1, 0.5)
    assert alone["joule"] == pytest.approx(6 / 12)
    assert alone["course"] == "learning (2)"
    assert shared["contracts"] == ["train_sharing", "full_sharing"]
    assert (shared["efficiency"], shared["step_gain"], shared["joule"]) == (99, -0.5, None)
    assert shared["course"] == "diverged (1)"
    assert worth(pd.DataFrame(), seconds) == []


def test_the_report_says_what_the_last_epoch_still_took_off(loans: Any) -> None:
    page = Page(write_report(*loans))
    places = [a.get("id") for a in page.named("table")]
    told = page.tables[places.index("worth")]
    assert "lender_a" in told
    assert "learning (" in told


def test_firms_that_contest_nothing_have_no_joint_table_and_no_prediction(heart: Any) -> None:
    study, run, verdict = heart
    page = Page(write_report(study, run, verdict))
    assert "There is none: the firms do not contest clients." in page.text
    assert "Nothing was predicted" in page.text
    assert "Predicted" not in page.tables[0]
    labels = [figure["aria-label"] for figure in page.named("figure")]
    assert not any(label.startswith(("Joint", "Measured")) for label in labels)
    assert sum(label.startswith("Payoff of") for label in labels) == 4
    assert sum(label.startswith("Training loss by") for label in labels) == 2
    assert "the model averaged from all firms" in page.text


def test_what_firms_made_of_an_offered_model_is_told(tmp_path: Path) -> None:
    judging = ("parties.firm_1.adopts=judge", "shift=noise", "study.seeds=2", "training.epochs=2")
    page = Page(write_report(*held(tmp_path, "experiment=reuse_images", *judging)))
    (table,) = [
        t
        for t, a in zip(page.tables, page.named("table"), strict=True)
        if a.get("id") == "adoptions"
    ]
    rows = list(csv.DictReader((tmp_path / "adoptions.csv").read_text().splitlines()))
    assert len(rows) == 2
    for row in rows:
        assert row["firm"] in table
        assert row["decision"] in table


def test_the_page_is_accessible(finished: Any) -> None:
    page = Page(write_report(*finished))
    assert page.named("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(f["role"] == "img" and f["aria-label"] for f in page.named("figure"))
    assert all(cell.get("scope") for cell in page.named("th"))
    assert len(page.named("table")) == len(page.named("caption"))
    ids = Counter(attrs["id"] for _, attrs in page.tags if "id" in attrs)
    assert [name for name, times in ids.items() if times > 1] == []
    links = re.findall(r'(?:url\(|xlink:href=")#([^)"]+)', page.source)
    assert set(links) <= set(ids)


def test_the_same_run_gives_the_same_bytes_also_from_the_verdict_on_disk(finished: Any) -> None:
    study, run, verdict = finished
    first = write_report(study, run, verdict).read_bytes()
    assert first == write_report(study, run, run.read_json("verdict.json")).read_bytes()


def test_a_hostile_study_name_and_reason_stay_words(tmp_path: Path) -> None:
    names = ["lender_a", "lender_b"]
    config = renamed(names)
    hostile, reason = "</title><script>alert(3)</script>", "</td><svg onload=alert(4)>"
    study, run, verdict = filed(tmp_path, config, outcome(names), declined={names[0]: reason})
    object.__setattr__(study, "name", hostile)  # past the check that a study makes of its name
    page = Page(write_report(study, run, {**verdict, "study": hostile}))
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert hostile in page.text
    assert reason in page.text
    assert "refused the offer under 2 of 2 seeds" in page.text


@pytest.mark.parametrize(
    "name", ["<b onclick=alert(1)>&", "</text></svg><img src=x>", "$\\frac{1$"]
)
def test_a_hostile_firm_name_stays_words_in_tables_and_figures(loans: Any, name: str) -> None:
    study, run, verdict = loans
    renamed_verdict = json.loads(json.dumps(verdict).replace('"lender_a"', json.dumps(name)))
    page = Page(write_report(study, run, renamed_verdict))
    assert {tag for tag, _ in page.tags}.isdisjoint({"b", "img"})
    assert name in page.tables[0]
    assert name in [data for tag, data in page.texts if tag == "text"]


def test_names_in_any_letters_are_drawn_as_they_are(tmp_path: Path) -> None:
    names = ["_first", "银行"]
    page = Page(write_report(*filed(tmp_path, renamed(names), outcome(names))))
    drawn = [data for tag, data in page.texts if tag == "text"]
    assert min(drawn.count(name) for name in names) >= 2  # a panel's title and a legend


def test_many_bins_are_labelled_as_bins(tmp_path: Path) -> None:
    names = ["lender_a", "lender_b"]
    config = renamed(names, "play.signal_bins=5")
    page = Page(write_report(*filed(tmp_path, config, outcome(names, bins=5))))
    drawn = [data for tag, data in page.texts if tag == "text"]
    assert drawn.count("bin 5") == 8
    assert drawn.count("0.0200") == 4 * 25
    assert "yes" not in drawn


def test_a_firm_that_was_never_measured_is_undecided_and_has_no_bar(tmp_path: Path) -> None:
    names = ["lender_a", "lender_b"]
    whole = outcome(names)
    only = {"ids": {"lender_a": whole.ids["lender_a"]}}
    only |= {"payoffs": {"lender_a": whole.payoffs["lender_a"]}}
    excluded = {"lender_b": "its update was not finite"}
    made = filed(tmp_path, renamed(names), whole, **only, predicted={}, excluded=excluded)
    page = Page(write_report(*made))
    assert "was left out under 2 of 2 seeds: its update was not finite" in page.text
    assert "nan" not in page.tables[0].lower()
    assert "undecided whether individually rational" in page.text
    assert "No messages are on file." in page.text
    assert "No training losses are on file." in page.text
