"""conf/ and the code agree in both directions, and every choice runs."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from abc import ABC
from pathlib import Path

import hydra
import pytest
import yaml
from hydra.errors import HydraException

import conf
import parties.backbones
import parties.canonicalize
import parties.datasets
import parties.energy
import parties.partitions
import parties.reuse
import parties.shifts
import parties.stopping
import server.contracts
import server.play
import server.strategies
import simulations.campaigns
import simulations.engines
import simulations.sweeps
from parties.backbones import Backbone
from parties.backbones.cnn import Cnn
from parties.canonicalize.recipe import Canonicalization
from parties.canonicalize.scorers import Recipe
from parties.datasets import Dataset
from parties.energy import Meter
from parties.exchange import FedpactError
from parties.partitions import Partition
from parties.reuse import ReuseMeasure
from parties.reuse.gate import Gate
from parties.reuse.judge import Judge
from parties.shifts import Shift
from parties.stopping import Stopping
from server.contracts import Contract
from server.market import Market
from server.participation import Participation
from server.play import Play
from server.strategies import Strategy
from simulations.build import build
from simulations.campaigns import Campaign
from simulations.engines import Engine
from simulations.mistakes import did_you_mean, explain
from simulations.results import RunFolder
from simulations.study import study_of
from simulations.sweeps import Design
from simulations.sweeps.launch import Launch
from simulations.tracking import Tracking
from tests.checks import (
    SMALL_HEART,
    SMALL_LOANS,
    SMALL_POOL,
    contexts,
    hold_on,
    plain,
    run_config,
    write_fashion,
    write_own,
)
from tests.inline_grid import InlineGrid

CONF = Path(conf.__file__).parent
KINDS: dict[str, type] = {
    "backbone": Backbone,
    "campaign": Campaign,
    "canonicalizer": Canonicalization,
    "contract": Contract,
    "dataset": Dataset,
    "energy": Meter,
    "reuse": Judge,
    "engine": Engine,
    "gate": Gate,
    "launch": Launch,
    "market": Market,
    "measure": ReuseMeasure,
    "participation": Participation,
    "partition": Partition,
    "play": Play,
    "scorer": Recipe,
    "shift": Shift,
    "stopping": Stopping,
    "strategy": Strategy,
    "sweep": Design,
    "tracking": Tracking,
}


def choices(group: str) -> list[str]:
    return sorted(p.stem for p in (CONF / group).glob("*.yaml"))


def filled(group: str) -> list[str]:
    """Choices that describe an object; campaign=none has none, canonicalizer=none changes one."""
    others = [("campaign", "none"), ("canonicalizer", "none"), ("sweep", "none")]
    return [name for name in choices(group) if (group, name) not in others]


def targets(group: str) -> set[str]:
    files = [yaml.safe_load((CONF / group / f"{n}.yaml").read_text()) for n in filled(group)]
    return {content["_target_"] for content in files}


def classes(kind: type) -> set[str]:
    for package in (
        parties.backbones,
        parties.canonicalize,
        parties.datasets,
        parties.energy,
        parties.partitions,
        parties.reuse,
        parties.shifts,
        parties.stopping,
        server.contracts,
        server.strategies,
        simulations.campaigns,
        simulations.engines,
        simulations.sweeps,
    ):
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")

    def concrete(base: type) -> set[type]:
        below = {c for sub in base.__subclasses__() for c in concrete(sub)}
        return below if ABC in base.__bases__ or inspect.isabstract(base) else below | {base}

    found = {f"{c.__module__}.{c.__qualname__}" for c in concrete(kind)}
    return {name for name in found if not name.startswith(("tests.", "simulations.bench."))}


@pytest.mark.parametrize("group", KINDS)
def test_every_class_has_a_conf_file_and_every_conf_file_a_class(group: str) -> None:
    assert targets(group) == classes(KINDS[group])


@pytest.mark.parametrize("group", KINDS)
def test_every_conf_file_lists_every_field(group: str) -> None:
    for name in filled(group):
        content = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
        content.pop("defaults", None)
        module, _, kind = content.pop("_target_").rpartition(".")
        fields = inspect.signature(getattr(importlib.import_module(module), kind)).parameters
        assert set(content) == set(fields), f"conf/{group}/{name}.yaml"


def studies() -> list[str]:
    """Experiments that are studies; campaigns have tests of their own."""
    texts = {n: (CONF / "experiment" / f"{n}.yaml").read_text() for n in choices("experiment")}
    return [name for name, text in texts.items() if "override /campaign" not in text]


ENGINES_TESTED_ELSEWHERE = {"ray", "flower"}  # tests/test_engines.py runs them

RUNS = [
    *[(f"experiment={name}",) for name in studies()],
    *[
        (f"market={name}",)
        for name in choices("market")
        if name not in ("own_cases", "common_clients")
    ],
    *[(f"backbone={name}",) for name in choices("backbone") if name not in ("cnn", "canonical")],
    *[("experiment=canonical_sharing", f"scorer={name}") for name in ("scalar", "classifier")],
    *[("parties=ten_digits", f"partition={name}") for name in choices("partition")],
    *[("parties=ten_digits", f"shift={name}", "backbone=cnn") for name in choices("shift")],
    ("parties=ten_fashion",),
    ("parties=two_own",),
    *[(f"training={name}",) for name in choices("training")],
    *[
        (f"stopping={name}", "parties.lender_a.kept_back=0.2", "parties.lender_b.kept_back=0.2")
        for name in choices("stopping")
    ],
    *[(f"energy={name}",) for name in choices("energy")],
    *[(f"play={name}",) for name in choices("play")],
    *[(f"limits={name}",) for name in choices("limits")],
    *[(f"engine={name}",) for name in choices("engine") if name not in ENGINES_TESTED_ELSEWHERE],
    ("+backbone@parties.lender_b.backbone=mlp",),
    ("play.signal_bins=3",),
    ("training.mixed_precision=bf16",),
    *[
        (f"strategy={name}", "study.seeds=1")
        for name in ("fedprox", "fedref", "fedavgm", "fedadam", "median", "trimmed_mean", "flower")
    ],
    *[
        (f"strategy={name}", "strategy.byzantine=0", "study.seeds=1")  # 4 hospitals are too few
        for name in ("krum", "multi_krum", "bulyan")
    ],
]
OWNERS = ("alpha", "beta")
MADE_UP = ("parties.firm_0.dataset.limit=0",)  # the made-up images are few
RUN_WITH_EXPERIMENTS = {
    "loans": {"parties": "lenders", "study": "all_contracts", "strategy": "forward"},
    "heart": {
        "parties": "hospitals",
        "study": "model_sharing",
        "strategy": "fedavg",
        "market": "own_cases",
    },
    "heart_pair_strategies": {"parties": "two_hospitals"},
    "reuse_images": {"parties": "two_digits", "strategy": "donor"},
    "canonical_sharing": {"parties": "two_halves", "market": "common_clients"},
    "canonical_sharing_digits": {"parties": "two_digit_halves"},
    "canonical_contract": {"parties": "two_fashion", "canonicalizer": "turns"},
}


@pytest.mark.parametrize("overrides", RUNS, ids=" ".join)
def test_every_choice_runs(overrides: tuple[str, ...], tmp_path: Path) -> None:
    heart = "heart" in overrides[0] or overrides[0].startswith("strategy=")
    small = SMALL_HEART if heart else (*SMALL_LOANS, "study.seeds=1")
    pool = any(data in overrides[0] for data in ("digits", "fashion"))
    small = SMALL_POOL if pool else small
    if "images" in overrides[0]:
        small = ("study.seeds=1", "training.epochs=1", "progress=none")
    fashion = "canonical" in overrides[0] and "digits" not in overrides[0]
    if "canonical" in overrides[0]:
        small = ("study.seeds=1", "training.epochs=1", "progress=none", *MADE_UP * fashion)
    if fashion or overrides[0] == "parties=ten_fashion":
        folder = write_fashion(tmp_path / "fashion")
        overrides = (*overrides, f"parties.firm_0.dataset.folder={folder}")
    if overrides[0] == "parties=two_own":
        small = ("study.seeds=1", "training.epochs=1", "progress=none")
        path = write_own(tmp_path / "own")  # the same clients, whatever firms know of them
        overrides = (*overrides, *(f"parties.{n}.dataset.description={path}" for n in OWNERS))
    config = run_config(tmp_path, *small, *overrides)
    study = study_of(json.loads(config["config"]))
    hold_on(InlineGrid(_client(), contexts(config)), config)
    held = {case.name for case in study.cases()}
    assert RunFolder(tmp_path).held() == held
    for name in held:
        assert RunFolder(tmp_path).load(name) is not None


@pytest.mark.parametrize(("experiment", "chosen"), RUN_WITH_EXPERIMENTS.items())
def test_the_experiments_use_the_choices_that_only_they_run(
    experiment: str, chosen: dict[str, str]
) -> None:
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    for group, name in chosen.items():
        assert f"override /{group}: {name}" in text


@pytest.mark.parametrize("group", ["parties", "study", "strategy", "market"])
def test_no_choice_is_left_without_a_run(group: str) -> None:
    covered = {c[group] for c in RUN_WITH_EXPERIMENTS.values() if group in c}
    covered |= {o[0].split("=")[1] for o in RUNS if o[0].startswith(f"{group}=")}
    assert covered == set(choices(group))


def _client() -> object:
    from simulations.engines import apps

    return apps.client


# ------------------------------------------------------------------------------ building and checks


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "parties",
        3,
        "simulations.results.pd.read_pickle",
        "simulations.results.write_whole",
        "simulations.results.Path",
    ],
)
def test_a_configuration_cannot_run_other_code(target: object) -> None:
    with pytest.raises(FedpactError, match="_target_"):
        build({"_target_": "server.market.OwnCases", "inner": [{"_target_": target}]})


def test_an_unknown_field_says_which_there_are() -> None:
    told = r"^R2 is no setting of OwnCases; legal are .* Leave it out\.$"
    with pytest.raises(FedpactError, match=told):
        build({"_target_": "server.market.OwnCases", "R2": 1})


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (("partition=dirichlet",), "these firms divide no pool"),
        (("experiment=heart", "shift=rotation"), "these firms divide no pool"),
        (("participation.share=0.5",), "hand theirs over once"),
        (("experiment=reuse_images", "strategy.donor=firm_9"), "the firms are firm_0, firm_1"),
        (
            ("experiment=reuse_images", "strategy=fedavg", "parties.firm_1.adopts=judge"),
            "strategy=donor, or adopts=best",
        ),
        (("experiment=heart", "participation.share=0.25"), "every round would be void"),
        (
            ("experiment=reuse_images", "parties.firm_0.contributes=false"),
            "is the donor and does not contribute",
        ),
        (("experiment=heart", "strategy=donor"), "Choose backbone=mlp or cnn"),
        (("experiment=heart", "+participation.absent.hungary=[99]"), "Legal are 0 to 19"),
        (
            (
                "experiment=heart",
                "strategy=fedref",
                "strategy.mode=pull",
                "strategy.start_round=20",
            ),
            "the model would never be pulled",
        ),
        (("experiment=heart", "strategy=flower", "+strategy.options.eta=abc"), "finite number"),
        (("experiment=reuse_images", "strategy.rounds=2"), "hands its finished model over once"),
        (("stopping=patience",), "kept_back=0.1, or use stopping=gdei"),
        (("parties.lender_a.contributes=false",), "no common model is published"),
        (
            ("parties.lender_a.adopts=best", "parties.lender_a.kept_back=0.2"),
            "no common model is published",
        ),
        (
            ("experiment=fedref_digits", "backbone=cnn"),
            "backbone.widths is no setting of Cnn; legal are channels, .* add ~backbone.widths",
        ),
        (("study.contracts=[full_sharing]",), "no_sharing must be among them"),
        (("study.contracts=[no_sharing,ful_sharing]",), "Did you mean 'full_sharing'"),
        (("study.seeds=[0,0]",), "distinct"),
        (("study.contracts=no_sharing",), "a list of different names"),
        (("study.name=../evil",), "letters, digits"),
        (("parties.lender_a.shares=models",), "write a list"),
        (("study.seeds=[-1]",), "distinct whole numbers >= 0"),
        (("study.seeds=many",), "number of seeds"),
        (("study.confidence=95",), "study.confidence is 95; legal is a number between 0 and 1"),
        (("study.confidence=true",), "study.confidence is True"),
        (("parties=hospitals",), "game of two firms"),
        (("strategy=fedavg",), "strategy=forward"),
        (("limits.minimum_firms=3",), "limits.minimum_firms"),
        (("parties.lender_a.name=x",), "a firm's name is its key"),
        (("parties.lender_a.shares=[secrets]",), "legal are"),
        (("parties.lender_a.dataset.clients=900",), "contest different clients"),
        (("experiment=heart", "strategy=forward"), "strategy=fedavg"),
        (("experiment=heart", "study.contracts=[no_sharing,infer_sharing]"), "no client in common"),
        (("experiment=heart", "+backbone@parties.hungary.backbone=mlp"), "different shapes"),
        (
            ("market=own_cases", "strategy=fedavg", "study.contracts=[no_sharing]"),
            "shapes|held-out",
        ),
    ],
)
def test_an_impossible_study_is_refused_before_the_first_epoch(
    overrides: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(FedpactError, match=problem):
        study_of(plain(*overrides))


def test_what_another_choice_sets_is_taken_out_as_the_error_says() -> None:
    words = ("experiment=fedref_digits", "backbone=cnn", "~backbone.widths")
    assert all(type(f.backbone) is Cnn for f in study_of(plain(*words)).firms.values())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("engine.batched=true",), "with engine=inline: it is a setting of engine=ray. Write"),
        (("engine=batched", "engine.batched=true"), "Write engine=ray in place of engine=batched"),
        (("sweep.points=3",), "with sweep=none: it is a setting of sweep="),
        (("dataset.folder=x",), r"^There is no key 'dataset\.folder'\. Did you mean"),
        (("strategy.mu=1",), "with strategy=forward: it is a setting of strategy=fedprox"),
        (("engine.none=1",), "engine has no settings with the present choices"),
        (("engine=ray", "engine.wrkers=1"), "Did you mean 'engine.workers'"),
    ],
)
def test_a_key_of_another_choice_is_told_with_that_choice(
    words: tuple[str, ...], told: str
) -> None:
    with (
        hydra.initialize_config_module("conf", version_base="1.3"),
        pytest.raises(HydraException) as fault,
    ):
        hydra.compose("config", [*words])
    assert re.search(told, explain(fault.value, words))


def test_a_close_word_is_suggested() -> None:
    assert did_you_mean("infer", ["infer_sharing", "x"]) == "Did you mean 'infer_sharing'?"
    assert did_you_mean("zzz", ["b", "a"]) == "Legal are: a, b."
