"""The adoption gate: one planted fault a check, policies, decisions and their memory."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import conf
from parties.backbones.cnn import Cnn
from parties.backbones.logistic import Logistic
from parties.exchange import Array, FedpactError
from parties.reuse.adoption import Adoption
from parties.reuse.artifact import (
    GOLDEN,
    MANIFEST,
    WEIGHTS,
    Artifact,
    Golden,
)
from parties.reuse.bounded import ArtifactError
from parties.reuse.card import Card
from parties.reuse.checks import BLOCK, PASS, SKIPPED, WARN, twenty
from parties.reuse.checks.cost import peak_bytes
from parties.reuse.checks.papers import licence_allowed
from parties.reuse.checks.quality import _probed, calibration_error, paired, turns
from parties.reuse.gate import Gate, built_from
from parties.reuse.ledger import Ledger, Sight, load, save
from parties.reuse.manifest import (
    Inputs,
    Manifest,
    Outputs,
    describe,
    digest_of,
)
from parties.training import weights_of
from simulations.build import build
from tests.offers import (
    BACKBONE,
    CARD_OF_PEER,
    CLASSES,
    KINDS,
    MANIFEST_OF_PEER,
    PARENT,
    TRAINING,
    Payload,
    World,
    digits,
    outputs_of,
    peer,
    plain,
    put,
    receiver,
    speaking,
)
from tests.offers import healthy as healthy
from tests.offers import keys as keys
from tests.offers import world as world

CONF = Path(conf.__file__).parent / "gate"
EARLY = (1, 2, 3)


def test_a_healthy_artifact_passes_all_twenty_checks(world: World) -> None:
    adoption = world.judge()
    found = {c.number: (c.status, c.reason) for c in adoption.checks}
    assert found == dict.fromkeys(range(1, 21), (PASS, ""))
    assert (adoption.decision, adoption.blocking) == ("adopt", ())
    assert (adoption.round, adoption.contract) == (3, "c1")
    assert adoption.digest == digest_of(peer())


# ------------------------------------------------------------------- one planted fault a check


def flip(name: str, at: int = -1) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[at] ^= 1
        (folder / name).write_bytes(content)

    return spoil


def pickled(folder: Path) -> None:
    (folder / "model.pt").write_bytes(pickle.dumps(Payload(folder.parent / "marker")))


class Noisy(nn.Sequential):
    """Differs a little from pass to pass, even in eval mode."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows) + 1e-6 * torch.randn(len(rows), 1)


class Branching(nn.Sequential):
    """Branches on its data: it runs, and cannot be exported."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows) if float(rows.sum()) > -1e9 else super().forward(-rows)


def built_as(kind: type[nn.Sequential]) -> Callable[[Manifest], nn.Module]:
    return lambda manifest: kind(*BACKBONE.build(64, 10, 0).children())


def with_weights(world: World, change: Callable[[dict[str, Array]], None], **kw: Any) -> World:
    weights = {name: array.copy() for name, array in peer(**kw).items()}
    change(weights)
    return replace(world, weights=weights)


def renamed(weights: dict[str, Array]) -> None:
    weights["classifier.weight"] = weights.pop("2.weight")


def diverged(weights: dict[str, Array]) -> None:
    weights["0.bias"][3] = np.nan


def untrained(weights: dict[str, Array]) -> None:
    weights |= weights_of(BACKBONE.build(64, 10, 9))


def unsure(weights: dict[str, Array]) -> None:
    weights["2.weight"] *= 0.05
    weights["2.bias"] *= 0.05


def unlike_golden(world: World) -> World:
    inputs = digits()[0][:4]
    return replace(world, golden=Golden(inputs, outputs_of(peer(), inputs) + np.float32(1e-3)))


def reused_name(world: World) -> World:
    seen = Sight("alpha", "digits_net", "b" * 64, 3, "c1", PARENT, True)
    return world.meets(ledger=Ledger((seen,)))


def no_contact(world: World) -> World:
    return replace(world, card=Card({**CARD_OF_PEER.fields, "contact": ""}))


def not_allowed(world: World) -> World:
    card = Card({**CARD_OF_PEER.fields, "licence": "GPL-3.0-only"})
    return replace(world, card=card).of(licence="GPL-3.0-only")


def renamed_golden(world: World) -> World:
    def plant(weights: dict[str, Array]) -> None:
        renamed(weights)

    inputs = digits()[0][:4]
    golden = Golden(inputs, outputs_of(peer(), inputs))
    return replace(with_weights(world, plant), golden=golden)


PLANTED: dict[int, Callable[[World], World]] = {
    1: lambda w: replace(w, after=flip(WEIGHTS)),
    2: lambda w: replace(w, signer="beta"),
    3: lambda w: replace(w, after=pickled),
    4: renamed_golden,
    5: lambda w: with_weights(w, diverged),
    6: unlike_golden,
    7: lambda w: w.of(outputs=Outputs((*CLASSES[1:], "0"))),
    8: lambda w: replace(w.meets(build=built_as(Noisy)), gate={"demanded": ()}).of(exports=()),
    9: lambda w: w.of(environment={"torch": ">=99"}),
    10: lambda w: w.meets(build=built_as(Branching)),
    11: lambda w: replace(w, gate={"max_parameters": 1000}),
    12: lambda w: replace(w, gate={"max_training_mb": 0.01}),
    13: lambda w: replace(w, gate={"max_median_ms": 0.0}),
    14: lambda w: with_weights(w, untrained),
    15: lambda w: with_weights(w, unsure),
    16: lambda w: with_weights(w, lambda weights: None, turned=False),
    17: no_contact,
    18: not_allowed,
    19: reused_name,
    20: lambda w: w.of(epsilon=None),
}


@pytest.mark.parametrize("number", PLANTED)
def test_a_planted_fault_fires_its_check_and_no_other(number: int, world: World) -> None:
    adoption = PLANTED[number](world).judge()
    assert speaking(adoption) == {number: BLOCK}
    assert adoption.decision == "refuse"
    (blocking,) = adoption.blocking
    step = twenty()[number - 1]
    assert blocking.startswith(f"{number} {step.name}: ")
    assert "legal" in blocking or "asks for" in blocking
    assert not (world.folder.parent / "marker").exists()
    after = [c.status for c in adoption.checks if c.number > number]
    assert set(after) == {SKIPPED} if number <= 4 else set(after) <= {PASS, SKIPPED}


def test_every_check_has_a_planted_fault() -> None:
    assert [step.number for step in twenty()] == list(PLANTED) == list(range(1, 21))


SOFTER: dict[str, tuple[int, str, Callable[[World], World]]] = {
    "unsigned": (2, BLOCK, lambda w: replace(w, signer=None)),
    "unsigned, tolerated": (2, WARN, lambda w: replace(w, signer=None, gate=soft())),
    "another's signature, though tolerated": (
        2,
        BLOCK,
        lambda w: replace(w, signer="beta", gate=soft()),
    ),
    "no key is pinned": (2, BLOCK, lambda w: replace(w, gate={"keys": {}})),
    "alpha's artifact under beta's name": (2, BLOCK, lambda w: w.of(firm="beta")),
    "handed over by another": (2, BLOCK, lambda w: w.meets(sender="beta")),
    "a constant layer": (5, WARN, lambda w: with_weights(w, constant)),
    "an exploded layer": (5, WARN, lambda w: with_weights(w, exploded)),
    "another range": (6, BLOCK, lambda w: w.of(inputs=Inputs((64,), 0.0, 255.0, "grey"))),
    "a mean of no channel": (6, BLOCK, lambda w: agreed(w, mean=(0.0,) * 7)),
    "two means and one deviation": (6, BLOCK, lambda w: agreed(w, mean=(0.0,) * 2, std=(1.0,))),
    "another group": (6, BLOCK, lambda w: w.of(inputs=replace(w.manifest.inputs, group="C4"))),
    "another hash of classes": (7, BLOCK, lambda w: w.of(outputs=Outputs(CLASSES, hash=PARENT))),
    "a package that is missing": (9, BLOCK, lambda w: w.of(environment={"no_such_thing": ">=1"})),
    "no specifier": (9, BLOCK, lambda w: w.of(environment={"torch": "new"})),
    "an unknown format": (10, BLOCK, lambda w: w.of(exports=("onnx",))),
    "too many MFLOPs": (11, BLOCK, lambda w: replace(w, gate={"max_training_mflops": 0.001})),
    "too dear to retrain": (14, BLOCK, lambda w: replace(w.meets(arm=cost_of), gate=cheap())),
    "a gain below the margin": (14, BLOCK, lambda w: replace(w, gate={"margin": 0.9})),
    "no split size": (17, BLOCK, lambda w: carded(w, metrics="accuracy 0.95")),
    "another round on the card": (17, BLOCK, lambda w: carded(w, round="2")),
    "no expression": (18, BLOCK, lambda w: replace(carded(w, licence="")).of(licence="MIT OR")),
    "another contract": (19, BLOCK, lambda w: w.meets(contract="c2")),
    "a missing parent": (19, BLOCK, lambda w: carded(w.of(parent=None), parent="none")),
    "another's weights": (19, BLOCK, lambda w: w.meets(ledger=first_offered_by_beta())),
    "softened": (20, WARN, lambda w: replace(w.of(epsilon=None), gate={"warn_only": (20,)})),
    "too large an epsilon": (20, BLOCK, lambda w: w.of(epsilon=11.0)),
}


def agreed(world: World, **fields: Any) -> World:
    """Both declare the same inputs."""
    inputs = replace(world.manifest.inputs, **fields)
    return world.of(inputs=inputs).meets(inputs=inputs)


def soft() -> dict[str, Any]:
    return {"allow_unsigned": True}


def cheap() -> dict[str, Any]:
    return {"max_arm": 1.0}


def cost_of(model: nn.Module, features: Array) -> float:
    return 2.0


def constant(weights: dict[str, Array]) -> None:
    weights["2.weight"][:] = 0.5


def exploded(weights: dict[str, Array]) -> None:
    weights["0.weight"] *= 1000


def carded(world: World, **fields: str) -> World:
    return replace(world, card=Card({**world.card.fields, **fields}))


def first_offered_by_beta() -> Ledger:
    return Ledger((Sight("beta", "net", digest_of(peer()), 3, "c1", None, False),))


@pytest.mark.parametrize("case", SOFTER)
def test_variants_of_faults_warn_or_block_in_their_check(case: str, world: World) -> None:
    number, status, plant = SOFTER[case]
    planted = plant(world)
    only = tuple(sorted({1, 2, 3, 4, number}))
    planted = replace(planted, gate={"checks": only, "demanded": ()} | (planted.gate or {}))
    adoption = planted.judge()
    assert speaking(adoption) == {number: status}
    wrong, _, do = adoption.checks[number - 1].reason.rpartition(". ")
    assert wrong
    assert do.endswith(".") or wrong.endswith(".")


def test_a_gain_that_may_lie_below_the_margin_is_warned_of(world: World) -> None:
    gate = {"checks": (1, 2, 3, 4, 14), "demanded": ()}
    value = replace(world, gate=gate).judge().checks[13].value
    assert isinstance(value, dict)
    folder = world.folder.parent / "other"
    close = replace(world, folder=folder, gate=gate | {"margin": float(value["gain"]) - 0.01})
    adoption = close.judge()
    assert speaking(adoption) == {14: WARN}
    assert adoption.decision == "adopt"
    assert "would decide" in adoption.checks[13].reason


def test_a_model_may_be_judged_by_its_own_answers(world: World) -> None:
    own = receiver()
    assert own.labels is not None
    gate = {"checks": (1, 2, 3, 4, 14), "demanded": (), "judged_by": "answers"}
    answers = replace(world, gate=gate).judge()
    assert speaking(answers) == {}
    value = answers.checks[13].value
    assert isinstance(value, dict)
    assert value["judged_by"] == "answers"
    made = outputs_of(peer(), own.features).argmax(1)
    assert float(value["offered"]) == pytest.approx(np.mean(made == own.labels), abs=0.02)
    # Unsure by temperature, it still ranks classes as before: its answers are as good.
    unsure_one = replace(with_weights(world, unsure), folder=world.folder.parent / "b", gate=gate)
    assert speaking(unsure_one.judge()) == {}
    shuffled = replace(with_weights(world, swapped), folder=world.folder.parent / "c", gate=gate)
    assert speaking(shuffled.judge()) == {14: BLOCK}


def swapped(weights: dict[str, Array]) -> None:
    """Answers 1 for 0, and so on; its features are as good as before."""
    for name in ("2.weight", "2.bias"):
        weights[name] = np.roll(weights[name], 1, axis=0)


def test_a_mapping_of_class_names_orders_its_outputs(world: World) -> None:
    shifted = (*CLASSES[1:], "0")
    planted = replace(world.of(outputs=Outputs(shifted)), gate={"checks": (7, 15), "demanded": ()})
    # Its output i still means digit i: what it calls "1" is the firm's "0", and so on.
    mapping = dict(zip(shifted, CLASSES, strict=True))
    right = replace(planted, receiver=replace(receiver(), mapping=mapping)).judge()
    assert speaking(right) == {}
    wrong = replace(planted, folder=world.folder.parent / "other")
    wrong = wrong.meets(mapping={name: name for name in CLASSES})
    assert speaking(wrong.judge()) == {15: BLOCK}


def test_canonicalization_is_measured_with_and_without(world: World) -> None:
    views = list(turns(digits()[0]).values())

    def upright(features: Array) -> Array:
        """Turns that of the four views first which has the most ink in its upper half."""
        four = np.stack([features, *(turn(features) for turn in views)])
        ink = four.reshape(4, len(features), 8, 8)[:, :, :4].sum((2, 3))
        return four[ink.argmax(0), np.arange(len(features))]

    gate = {"checks": (16,), "demanded": ()}
    planted = replace(with_weights(world, lambda weights: None, turned=False), gate=gate)
    adoption = replace(planted, receiver=replace(receiver(), canonicalize=upright)).judge()
    value = adoption.checks[15].value
    assert isinstance(value, dict)
    # Upright or not, a case is shown to the model the same way, but where two views tie.
    assert abs(float(value["drop"])) < 0.05
    assert float(value["drop_without_canonicalization"]) > 0.5


def test_batchnorm_without_statistics_is_no_model(world: World) -> None:
    backbone = Cnn(channels=(4,), normalization="batch")
    weights = weights_of(backbone.build(64, 10, 0))
    facts = replace(MANIFEST_OF_PEER, backbone=describe(backbone), exports=())
    artifact = Artifact(
        replace(facts, tensors=Artifact.from_weights(weights, **plain(facts)).manifest.tensors),
        weights,
    )
    adoption = Gate(checks=(4, 8)).judge(artifact, receiver())
    assert speaking(adoption) == {8: BLOCK}
    assert "BatchNorm" in adoption.blocking[0]


def test_the_classifier_may_be_left_out_where_the_policy_says_so(world: World) -> None:
    weights = {name: array for name, array in peer().items() if not name.startswith("2.")}
    planted = replace(world, weights=weights, golden=Golden(digits()[0][:2], np.zeros((2, 10))))
    strict = planted.judge()
    assert speaking(strict) == {4: BLOCK}
    planted = replace(planted, folder=world.folder.parent / "other")
    policy = {"backbone_only": True, "demanded": (), "checks": (1, 2, 3, 4, 5, 6, 7, 14, 15, 16)}
    loose = replace(planted, gate=policy).judge()
    assert loose.decision == "adopt"
    assert [loose.checks[n - 1].status for n in (4, 6, 7, 14, 15, 16)] == [
        *(PASS, SKIPPED, SKIPPED, PASS, SKIPPED, SKIPPED)
    ]


# -------------------------------------------------------------------------- models in messages


def test_a_model_in_a_message_is_judged_without_files(world: World) -> None:
    artifact = Artifact.from_weights(peer(), **plain(MANIFEST_OF_PEER))
    adoption = Gate(latency_repeats=2).judge(artifact, receiver())
    skipped = [c.number for c in adoption.checks if c.status == SKIPPED]
    assert skipped == [1, 2, 6, 17]
    assert all("message" in c.reason or "golden" in c.reason for c in adoption.checks if c.reason)
    assert adoption.decision == "adopt"
    assert adoption.digest == world.judge().digest


def test_a_policy_may_demand_what_a_message_lacks() -> None:
    artifact = Artifact.from_weights(peer(), **plain(MANIFEST_OF_PEER))
    adoption = Gate(checks=(1, 4), demanded=(1,)).judge(artifact, receiver())
    assert adoption.decision == "refuse"
    assert "demands" in adoption.blocking[0]


def test_a_message_of_objects_is_no_model() -> None:
    with pytest.raises(ArtifactError, match="plain numbers"):
        Artifact.from_weights({"w": np.array([{}])}, **plain(MANIFEST_OF_PEER))


# -------------------------------------------------------------------------- numbers of the checks


def test_a_perfectly_calibrated_model_has_no_calibration_error() -> None:
    confidence = np.repeat([0.25, 0.75], 100)
    right = np.tile([True, False, False, False], 25), np.tile([True, True, True, False], 25)
    assert calibration_error(confidence, np.concatenate(right), 10) == pytest.approx(0)
    assert calibration_error(np.ones(4), np.zeros(4, bool), 15) == 1.0


def test_the_interval_of_a_gain_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        draw = rng.choice(4, 100, p=[0.6, 0.2, 0.1, 0.1])  # true gain 0.1
        _, least, most = paired(draw <= 1, (draw == 0) | (draw == 2), 0.95)
        covered += least <= 0.1 <= most
    assert 0.93 < covered / 2000 < 0.98


def test_four_quarter_turns_are_no_turn() -> None:
    images = np.random.default_rng(0).random((3, 64), dtype=np.float32)
    by = list(turns(images).values())
    assert np.array_equal(by[0](by[2](images)), images)
    assert np.array_equal(by[1](by[1](images)), images)
    assert turns(np.zeros((3, 60), np.float32)) == {}


def test_training_takes_more_memory_than_a_pass_and_large_batches_more_than_small() -> None:
    module = BACKBONE.build(64, 10, 0)

    def run(rows: int) -> Callable[[], None]:
        def forward() -> None:
            with torch.no_grad():
                module(torch.zeros(rows, 64))

        return forward

    weights = 4 * sum(p.numel() for p in module.parameters())
    # Inputs and the first layer's outputs, then those and their positive part.
    assert peak_bytes(module, run(100)) == weights + 4 * 100 * (64 + 24 + 24)
    assert peak_bytes(module, run(10)) == weights + 4 * 10 * (64 + 24 + 24)


@pytest.mark.parametrize(
    ("expression", "legal"),
    [
        ("MIT", True),
        ("mit", False),
        ("MIT AND GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only AND X", True),
        ("(MIT OR X) AND X", False),
        ("MIT WITH Some-exception", True),
        ("X WITH Y", True),
        ("X", False),
    ],
)
def test_a_licence_is_allowed_where_its_expression_can_be_met(expression: str, legal: bool) -> None:
    assert licence_allowed(expression, ("MIT", "X WITH Y")) == legal


@pytest.mark.parametrize("text", ["", "MIT OR", "(MIT", "MIT)", "MIT MIT", "AND", "(" * 300])
def test_no_licence_expression_is_an_error(text: str) -> None:
    with pytest.raises(FedpactError, match="SPDX"):
        licence_allowed(text, ("MIT",))


# ------------------------------------------------------------------------- decisions and memory


def test_a_decision_is_the_same_twice_but_for_the_clock(world: World) -> None:
    one = world.judge()
    two = world.policy().judge(world.folder, receiver())
    assert one != two
    assert one.without_times() == two.without_times()
    assert Adoption.from_json(one.to_json()) == one


def test_a_decision_by_the_clock_is_the_same_but_for_it(world: World) -> None:
    slow = replace(world, gate={"max_median_ms": 0.0, "checks": (1, 2, 3, 4, 13), "demanded": ()})
    one, two = slow.judge(), slow.policy().judge(world.folder, receiver())
    assert one.decision == two.decision == "refuse"
    assert one.without_times() == two.without_times()


class Drawing(nn.Sequential):
    """Draws at random in every pass, where it is."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows) + 0.5 * torch.randn(len(rows), 10, device=rows.device)


HAS_CUDA = torch.cuda.is_available()


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not HAS_CUDA, reason="no such GPU"))],
)
def test_a_model_that_draws_at_random_is_judged_the_same_twice_and_disturbs_no_other_draw(
    device: str,
) -> None:
    artifact = Artifact.from_weights(peer(), **plain(MANIFEST_OF_PEER))
    firm = replace(receiver(), build=built_as(Drawing), own=None, device=device)
    states = [torch.get_rng_state, *([torch.cuda.get_rng_state] if HAS_CUDA else [])]
    values = []
    for _ in range(2):
        torch.randn(3, device=device)  # wherever the generators stand
        before = [state() for state in states]
        adoption = Gate(checks=(14, 15), judged_by="answers").judge(artifact, firm)
        assert all(torch.equal(a, state()) for a, state in zip(before, states, strict=True))
        values.append([c.value for c in adoption.checks if c.number in (14, 15)])
    assert values[0] == values[1]
    assert values[0][1] is not None


def test_a_probe_takes_the_mean_over_places_of_every_channel() -> None:
    labels = np.arange(120) % 2
    signs = (2 * labels - 1)[:, None, None] * np.array([1, -1])[:, None]  # channels cancel out
    noise = np.random.default_rng(0).normal(size=(120, 2, 8))
    features = (signs + 0.1 * noise).astype(np.float32)
    model = nn.Sequential(nn.Conv1d(2, 2, 1), nn.Conv1d(2, 2, 8), nn.Flatten())
    with torch.no_grad():
        torch.as_tensor(model[0].weight)[:] = torch.eye(2)[:, :, None]
    rows = np.arange(120)
    right = _probed(model, features, labels, rows[:60], rows[60:], np.random.default_rng(0))
    assert right.all()


def test_a_firms_cases_are_of_its_own_contract() -> None:
    with pytest.raises(FedpactError, match="both must be the same"):
        replace(receiver(), inputs=Inputs((8, 8), 0.0, 1.0))


def test_an_architecture_too_large_for_memory_is_refused_before_it_is_built(world: World) -> None:
    vast = {"class": describe(BACKBONE)["class"], "fields": {"widths": [10**7, 10**7]}}
    assert speaking(world.of(backbone=vast).judge()) == {4: BLOCK}
    unchecked = replace(world, folder=world.folder.parent / "other", gate={"checks": (14,)})
    adoption = replace(unchecked.of(backbone=vast), gate={"checks": (14,), "demanded": ()}).judge()
    assert speaking(adoption) == {14: BLOCK}
    assert "does not fit" in adoption.blocking[0]


def test_a_refusal_survives_its_text_though_a_number_is_infinite(world: World) -> None:
    inputs = digits()[0][:4]
    golden = Golden(inputs, np.full((4, 10), np.inf, np.float32))
    adoption = replace(world, golden=golden).judge()
    assert speaking(adoption) == {6: BLOCK}
    again = Adoption.from_json(adoption.to_json())
    assert again.checks[5].value == "inf"
    assert again.blocking == adoption.blocking


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1}'])
def test_no_adoption_is_read_from_another_text(text: str) -> None:
    with pytest.raises(FedpactError):
        Adoption.from_json(text)
    with pytest.raises(FedpactError):
        Ledger.from_json(text)


def judged_in(rounds: list[tuple[int, World]], ledger: Ledger) -> tuple[Ledger, list[Adoption]]:
    adoptions = []
    for turn, place in rounds:
        gate = replace(place.policy(), checks=(1, 2, 3, 4, 18, 19), demanded=())
        adoption = gate.judge(place.write(), replace(receiver(), ledger=ledger))
        ledger = ledger.record(adoption, turn)
        adoptions.append(adoption)
    return ledger, adoptions


def next_model(world: World, name: str, turn: int, parent: Array | str, scale: float) -> World:
    weights = {k: v * np.float32(scale) for k, v in peer().items()}
    moved = replace(world, folder=world.folder.parent / name, weights=weights)
    return moved.of(round=turn, parent=parent)


def test_a_chain_of_rounds_is_adopted_and_a_gap_in_it_is_not(world: World) -> None:
    first = next_model(world, "one", 3, PARENT, 1.0)
    second = next_model(world, "two", 4, digest_of(peer()), 2.0)
    fourth = next_model(world, "four", 6, "c" * 64, 3.0)
    again = next_model(world, "again", 4, digest_of(peer()), 4.0)
    ledger, adoptions = judged_in([(3, first), (4, second), (6, fourth), (7, again)], Ledger())
    assert [a.decision for a in adoptions] == ["adopt", "adopt", "refuse", "refuse"]
    assert "never saw" in adoptions[2].blocking[0]
    assert "later round, or another name" in adoptions[3].blocking[0]
    pinned = ledger.pinned("alpha", "digits_net")
    assert pinned is not None
    assert (pinned.digest, pinned.round, pinned.contract) == (adoptions[1].digest, 4, "c1")
    assert Ledger.from_json(ledger.to_json()) == ledger


def test_a_problem_is_open_from_the_first_warning_to_the_next_pass(
    world: World, tmp_path: Path
) -> None:
    first = next_model(world, "one", 1, PARENT, 1.0).of(licence="GPL-3.0-only")
    second = next_model(world, "two", 2, digest_of(peer()), 1.0).of(licence="GPL-3.0-only")
    third = next_model(world, "three", 3, digest_of(peer()), 1.0)
    ledger, adoptions = judged_in([(1, first), (2, second)], Ledger())
    (problem,) = ledger.problems
    assert (problem.check, problem.theme, problem.opened, problem.closed) == (
        18,
        "licence",
        1,
        None,
    )
    assert ledger.open_by_theme() == {"licence": 1}
    ledger, more = judged_in([(4, third)], ledger)
    (row,) = ledger.rows()
    assert (row["opened"], row["closed"]) == (1, 4)
    seconds = [a.checks[17].seconds for a in (*adoptions, *more)]
    assert row["seconds"] == pytest.approx(sum(seconds))
    assert ledger.open_by_theme() == {"licence": 0}
    save(ledger, tmp_path / "ledger.json")
    assert load(tmp_path / "ledger.json") == ledger
    assert load(tmp_path / "none.json") == Ledger()
    for spoilt in (b"", b"\xff", ledger.to_json().encode()[:-9]):
        (tmp_path / "ledger.json").write_bytes(spoilt)
        with pytest.raises(FedpactError, match=r"ledger.*Restore the ledger from a copy"):
            load(tmp_path / "ledger.json")
    (tmp_path / "ledger.json").write_text(ledger.to_json().replace('"format": 1', '"format": 99'))
    with pytest.raises(FedpactError, match="of format 99; legal is 1"):
        load(tmp_path / "ledger.json")


def test_a_place_where_no_ledger_can_be_is_named_before_it_is_needed(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none" / "ledger.json"):
        with pytest.raises(FedpactError, match=r"cannot be read .* make the folder"):
            load(place)
        with pytest.raises(FedpactError, match="cannot be written"):
            save(Ledger(), place)


@pytest.mark.parametrize(
    "fields", [{"widths": 5}, {"widths": "${oc.env:HOME}"}, {"widths": [2**62, 2**62]}, {"x": 1}]
)
def test_a_backbone_of_an_enemys_fields_is_refused_in_words(fields: dict[str, Any]) -> None:
    about = replace(MANIFEST_OF_PEER, backbone={**describe(BACKBONE), "fields": fields})
    with pytest.raises(FedpactError, match=r"cannot be built|each width is a whole number") as told:
        built_from(KINDS)(about)
    assert str(Path.home()) not in str(told.value)


def test_who_offers_anothers_weights_becomes_no_maker_of_them(world: World) -> None:
    mine = replace(next_model(world, "one", 3, PARENT, 1.0))
    stolen = replace(next_model(world, "two", 3, PARENT, 1.0).of(firm="beta"), signer="beta")
    again = replace(stolen, folder=world.folder.parent / "three")
    ledger, adoptions = judged_in([(3, mine), (4, stolen), (5, again)], Ledger())
    assert [a.decision for a in adoptions] == ["adopt", "refuse", "refuse"]
    assert "alpha offered exactly these weights before" in adoptions[2].blocking[0]
    assert {s.firm for s in ledger.sights} == {"alpha"}


# -------------------------------------------------------------------------------------- policies


@pytest.mark.parametrize(("name", "runs"), [("off", 0), ("fast", 16), ("full", 20)])
def test_the_policies_are_built_from_their_files(name: str, runs: int) -> None:
    gate = build(yaml.safe_load((CONF / f"{name}.yaml").read_text()))
    assert isinstance(gate, Gate)
    assert len(gate.checks) == runs


def test_the_full_policy_is_the_class_but_for_its_demands() -> None:
    gate = build(yaml.safe_load((CONF / "full.yaml").read_text()))
    assert replace(gate, demanded=()) == Gate()


def test_the_open_gate_adopts_what_can_be_read_and_nothing_else(
    healthy: dict[str, bytes], tmp_path: Path
) -> None:
    gate = build(yaml.safe_load((CONF / "off.yaml").read_text()))
    adopted = gate.judge(put(tmp_path / "good", healthy), receiver())
    assert (adopted.decision, adopted.digest) == ("adopt", digest_of(peer()))
    assert {c.status for c in adopted.checks} == {SKIPPED}
    for place, name in enumerate((WEIGHTS, MANIFEST, GOLDEN)):
        spoilt = {**healthy, name: healthy[name][:-1]}
        assert gate.judge(put(tmp_path / str(place), spoilt), receiver()).decision == "refuse"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("checks", [0]),
        ("checks", [1, 1]),
        ("demanded", [21]),
        ("warn_only", [3]),
        ("max_ece", 2),
        ("max_parameters", -1),
        ("golden_tolerance", 0),
        ("margin", "much"),
        ("keys", {"alpha": ""}),
        ("card_fields", ["fee"]),
        ("allow_unsigned", 1),
        ("batch", 0),
        ("judged_by", "price"),
        ("confidence", 1.0),
        ("licences", "MIT"),
    ],
)
def test_a_policy_that_cannot_be_says_what_is_legal(field: str, value: Any) -> None:
    with pytest.raises(FedpactError, match=f"gate.{field} is .*; legal is"):
        Gate(**{field: value})


def test_a_model_without_hidden_layers_is_judged_by_its_answers() -> None:
    features, labels = digits()
    backbone = Logistic()
    module = backbone.build(64, 10, 0)
    TRAINING.fit(module, features[:1000], labels[:1000], 0)
    facts = replace(MANIFEST_OF_PEER, backbone=describe(backbone))
    artifact = Artifact.from_weights(weights_of(module), **plain(facts))
    firm = replace(receiver(), build=built_from({describe(backbone)["class"]: Logistic}))
    adoption = Gate(checks=(4, 14)).judge(artifact, firm)
    assert speaking(adoption) == {}
    untaught = Artifact.from_weights(weights_of(backbone.build(64, 10, 0)), **plain(facts))
    assert speaking(Gate(checks=(4, 14)).judge(untaught, firm)) == {14: BLOCK}
