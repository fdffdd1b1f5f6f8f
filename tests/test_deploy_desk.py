"""A firm's desk from its folder: what it checks before it serves, and what a study may ask it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parties.desk.policy import Policy
from parties.exchange import (
    Deal,
    Declaration,
    Enrol,
    FedpactError,
    Keys,
    Measure,
    Offer,
    Query,
    Refusal,
    Request,
    Reveal,
    Serve,
    Settle,
    Trained,
    Unmask,
    unpack,
)
from simulations.build import sha256
from simulations.deploy.desk import agreement, desk_of
from simulations.deploy.layout import Deployment, FirmFolder
from simulations.deploy.writing import Place, write_deployment
from simulations.engines import apps
from simulations.study import study_of
from tests.checks import (
    SMALL_HEART,
    SMALL_LOANS,
    RecordingGrid,
    config_of,
    contexts,
    firms_of,
    hold_on,
    plain,
    run_config,
    write_own,
)
from tests.inline_grid import InlineGrid

OWN = ("parties=two_own", "training.epochs=2", "study.seeds=1")
ALPHA = "firm: alpha\ndata: data.yaml\n"


@pytest.fixture
def firm(tmp_path: Path) -> FirmFolder:
    """The folder of a firm that has put its data and its own file there."""
    write_deployment(config_of(*OWN), Place(str(tmp_path / "d")))
    folder = Deployment(tmp_path / "d").firm("alpha")
    write_own(folder.path)
    return folder


def test_a_desk_of_a_firm_with_own_data_enrols_and_trains_and_keeps_to_its_policy(
    firm: FirmFolder,
) -> None:
    firm.settings.write_text(ALPHA + "policy: {shares: [predictions], tells: sums}\n")
    desk = desk_of(firm, "alpha")
    study = study_of(plain(*OWN), away=True)
    terms = {name: c.terms(study.strategy.rounds) for name, c in study.contracts.items()}
    assert isinstance(desk.answer(Offer(terms["no_sharing"], 0, 0), "r/1"), Refusal)
    digest = firm.digest.read_text().split()[0]
    told = desk.answer(Enrol(0, digest), "r/0")
    assert isinstance(told, Declaration)
    assert (told.firm, told.validation > 0, told.contested > 0) == ("alpha", True, True)
    trained = desk.answer(Offer(terms["no_sharing"], 0, 0), "r/2")
    assert isinstance(trained, Trained)
    assert len(trained.losses) == 2
    refused = desk.answer(Offer(terms["full_sharing"], 0, 0, 0), "r/3")
    assert isinstance(refused, Refusal)
    assert "policy.shares does not hold models" in refused.reason
    desk.close()


def spoil(file: str, text: str) -> Callable[[FirmFolder], None]:
    def change(firm: FirmFolder) -> None:
        (firm.path / file).write_text(text)

    return change


@pytest.mark.parametrize(
    ("change", "name", "told"),
    [
        (spoil("study.sha256", "0" * 64), "alpha", "and you agreed to 0000"),
        (spoil("study.sha256", ""), "alpha", "Ask the operator for both again"),
        (spoil("study.json", "{}"), "alpha", "has the sha256 44136fa.*and you agreed to"),
        (spoil("firm.yaml", ALPHA + "polici: {}\n"), "alpha", "Did you mean 'policy'"),
        (spoil("firm.yaml", ALPHA + "policy: {most_round: 1}"), "alpha", "mean 'most_rounds'"),
        (spoil("firm.yaml", "firm: alpha\n"), "alpha", "data is null, and the study asks for your"),
        (spoil("firm.yaml", ALPHA + "device: tpu"), "alpha", "device is 'tpu'"),
        (lambda firm: None, "beta", "is of alpha, not of beta"),
        (spoil("firm.yaml", "firm: alpa\ndata: data.yaml"), "alpa", "Did you mean 'alpha'"),
        (lambda firm: (firm.path / "data.yaml").unlink(), "alpha", "data.yaml.*cannot be read"),
        (lambda firm: (firm.path / "clients.csv").unlink(), "alpha", "clients.csv.*cannot be read"),
        (spoil("clients.csv", "client,age\n1,30\n"), "alpha", "`.*check --firm NAME` lists every"),
    ],
)
def test_a_desk_that_cannot_serve_says_why_before_it_serves(
    change: Callable[[FirmFolder], None], name: str, told: str, firm: FirmFolder
) -> None:
    change(firm)
    with pytest.raises(FedpactError, match=told):
        desk_of(firm, name)
    assert not firm.audit.exists()


def test_a_firm_whose_data_the_study_knows_names_none_of_its_own(tmp_path: Path) -> None:
    write_deployment(config_of(*SMALL_LOANS), Place(str(tmp_path / "d")))
    firm = Deployment(tmp_path / "d").firm("lender_a")
    desk_of(firm, "lender_a").close()
    firm.settings.write_text("firm: lender_a\ndata: data.yaml\n")
    with pytest.raises(
        FedpactError, match=r"data is data\.yaml, and the study gives this firm Taiw"
    ):
        desk_of(firm, "lender_a")


# ------------------------------------------------------------- what an honest operator really asks

DONOR = (
    *("study=model_sharing", "parties=two_digits", "market=own_cases", "strategy=donor"),
    *("backbone=mlp", "study.seeds=1", "training.epochs=1", "progress=none"),
)
STUDIES: dict[str, tuple[tuple[str, ...], set[type[Request]]]] = {
    "loans": ((*SMALL_LOANS, "study.settles=firms"), {Offer, Query, Reveal, Settle}),
    "noise": ((*SMALL_LOANS, "contract.infer_sharing.prediction_epsilon=2"), {Offer, Query}),
    "fedref": (
        (*SMALL_HEART, "strategy=fedref", "strategy.mode=pull", "strategy.precision=diagonal"),
        {Offer, Measure},
    ),
    "masks": (
        (*SMALL_HEART, "contract.train_sharing.secure=true"),
        {Keys, Deal, Offer, Unmask, Measure},
    ),
    "donor": (DONOR, {Offer, Measure}),
    "watched": ((*SMALL_HEART, "study.watch=true"), {Offer, Measure}),
    "common": (
        (
            *("experiment=canonical_sharing_digits", "study.seeds=1", "strategy.rounds=1"),
            "study.settles=firms",
        ),
        {Offer, Query, Serve, Settle},
    ),
}


@pytest.mark.parametrize("name", STUDIES)
def test_all_that_an_operator_asks_in_a_whole_study_was_agreed_and_passes_the_policy(
    name: str, tmp_path: Path
) -> None:
    words, kinds = STUDIES[name]
    config = run_config(tmp_path, *words)
    names = dict(zip(contexts(config), firms_of(config), strict=True))
    grid = RecordingGrid(InlineGrid(apps.client, contexts(config)), names)
    hold_on(grid, config)
    digest = sha256(str(config[apps.CONFIG]))
    agreed = agreement(study_of(plain(*words), away=True), digest)
    asked = [unpack(packed) for sender, _, packed in grid.log if sender == "operator"]
    assert {Enrol, *kinds} <= {type(request) for request in asked}
    for request in asked:
        assert isinstance(request, Request)
        if isinstance(request, Enrol):  # a simulation has no digest to ask with
            request = replace(request, study=digest)
        assert agreed.objection(request) == ""
        assert Policy().objection(request) == ""
    extras = {"fedref": "precision", "donor": "card", "watched": "by_class"}
    if name in extras:  # the study did ask for it, and a study without it would be refused
        assert any(getattr(request, extras[name], False) for request in asked)
        strict = replace(agreed, extras=())
        assert any(strict.objection(r) for r in asked if isinstance(r, Request))
    offers = [r for r in asked if isinstance(r, Offer) and r.epochs]
    if offers:  # the bound on epochs is what is asked, and no more
        fewer = replace(agreed, most_epochs=agreed.most_epochs - 1)
        assert any("more epochs" in fewer.objection(r) for r in offers)


# ------------------------------------------------------------------ what no study of a market asks


def test_a_desk_answers_nothing_that_its_market_does_not_ask() -> None:
    loans = study_of(plain(*SMALL_LOANS, "study.settles=firms"), away=True)
    heart = study_of(plain("experiment=heart"), away=True)
    contest, own = agreement(loans, ""), agreement(heart, "")
    alone = loans.contracts["no_sharing"].terms(1)
    for request in (Measure(alone, 0), Serve(alone, 0)):
        assert "asks no" in contest.objection(request)
    for asked in (Reveal(alone, 0), Query(alone, 0, "validation"), Serve(alone, 0)):
        assert "asks no" in own.objection(asked)
    assert contest.objection(Reveal(alone, 0)) == ""
    shares = np.array([1.0, loans.market.gamma])  # type: ignore[attr-defined]
    worth = loans.market.payoff  # type: ignore[attr-defined]
    honest = Settle(alone, 0, "contested", np.array([0, 1]), shares, worth)
    assert contest.objection(honest) == ""
    assert "worth is not" in contest.objection(replace(honest, worth=2 * worth))
    assert "none of the market's" in contest.objection(replace(honest, shares=0.3 * shares))
