"""The judge's command: a model and data of a user's own, in any of their formats."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors
from torch import nn

from parties.backbones.mlp import Mlp
from parties.datasets.digits import Digits
from parties.exchange import FedpactError
from parties.reuse.adoption import Adoption
from parties.reuse.artifact import Golden, collect, write_artifact
from parties.reuse.calibration import calibrate
from parties.reuse.card import CARD_FIELDS, Card
from parties.reuse.gate import Gate
from parties.reuse.history import History
from parties.reuse.judge import Judge
from parties.reuse.ledger import load
from parties.reuse.linear_probe import LinearProbe
from parties.reuse.manifest import Inputs, Manifest, Outputs, describe
from parties.reuse.profile import Profile
from parties.reuse.signing import make_keys, sign
from parties.reuse.zero_shot import ZeroShot
from parties.shifts.rotation import Rotation
from parties.training import Training, weights_of
from simulations.judge.__main__ import main
from simulations.judge.data import Shape, _numbered, read
from simulations.judge.gating import origin
from simulations.judge.model import of_artifact
from simulations.judge.words import calibrated

TRAINING = Training(epochs=10, batch_size=32, learning_rate=0.1, momentum=0.0, schedule="constant")
SMALL = ("training.batch_size=32", "training.momentum=0.0", "training.schedule=constant")
WIDE = ("backbone=mlp", "backbone.widths=[64]")
MLP = ("backbone=mlp", "backbone.widths=[32]")


@cache
def trained() -> nn.Module:
    own = Digits(0, 2).split(0).training
    model = Mlp((32,)).build(64, 10, 0)
    TRAINING.fit(model, own.features, own.labels, 0)
    return model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of digits, its card, and other digits in several formats."""
    folder = tmp_path_factory.mktemp("judge")
    own, other = (Digits(i, 2).split(0).training for i in (0, 1))
    model = trained()
    save_file(weights_of(model), folder / "model.safetensors")
    card = Profile.of(model, own.features, own.labels, np.random.default_rng(0))
    card.save(folder / "card.safetensors")
    turned = Rotation(60).apply(other.features, other.ids, 1, 2, 0)
    np.savez(folder / "same.npz", features=other.features, labels=other.labels)
    np.savez(folder / "own.npz", features=own.features, labels=own.labels)
    np.savez(folder / "turned.npz", features=turned, labels=other.labels)
    np.savez(folder / "unlabelled.npz", features=turned)
    np.savez(folder / "one.npz", features=turned[:1], labels=other.labels[:1])
    save_file({"x": np.zeros(3, np.float32)}, folder / "bare.safetensors")
    table = pd.DataFrame(other.features, columns=[f"p{i}" for i in range(64)])
    table.assign(digit=other.labels).to_csv(folder / "same.csv", index=False)
    return folder


@pytest.fixture
def told(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.chdir(place)
        code = main(list(words))
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_a_model_that_serves_is_reused_as_it_is(told: Any) -> None:
    code, out, _ = told("model=model.safetensors", "data=same.npz", "card=card.safetensors", *MLP)
    assert code == 0
    assert "decision: as_is" in out
    assert "arm" in out
    assert "energy estimated" in out


def test_a_table_gives_the_same_answer_as_arrays(told: Any) -> None:
    words = ("model=model.safetensors", "card=card.safetensors", "format=json", *MLP)
    found = [
        json.loads(told(*words, *data)[1])
        for data in (("data=same.npz",), ("data=same.csv", "label=digit"))
    ]
    one, two = ({n: m["value"] for n, m in f["measures"].items()} for f in found)
    assert one == pytest.approx(two)
    assert found[0]["decision"] == found[1]["decision"]


def test_the_sources_own_data_serve_where_there_is_no_card(told: Any) -> None:
    words = ("model=model.safetensors", "data=turned.npz", "format=json", *MLP)
    card, source = (
        json.loads(told(*words, known)[1])["measures"]["arm"]["value"]
        for known in ("card=card.safetensors", "source=own.npz")
    )
    assert source == pytest.approx(card, rel=0.01)


def test_without_a_card_or_labels_the_rest_is_measured_and_the_others_are_named(told: Any) -> None:
    code, out, _ = told("model=model.safetensors", "data=turned.npz", *MLP)
    assert code == 0
    assert "left out, for want of a profile card or of labels: resque, arm" in out
    code, out, _ = told(
        "model=model.safetensors", "data=unlabelled.npz", "card=card.safetensors", *MLP
    )
    assert "zero_shot_error, resque, linear_probe" in out
    assert "decision: probe" in out
    code, _, err = told("model=model.safetensors", "data=unlabelled.npz", *MLP)
    assert code == 2
    assert "Give label=COLUMN, card=FILE or source=FILE" in err


def test_a_measured_outcome_makes_the_history_grow(told: Any, place: Path, tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    words = ("model=model.safetensors", "data=turned.npz", "card=card.safetensors", *MLP, *SMALL)
    code, out, _ = told(*words, f"history={file}", "outcome=measure", "case=a", "kind=turn")
    assert code == 0
    assert f"added to {file}" in out
    (row,) = History.load(file).rows
    assert (row["case"], row["kind"]) == ("a", "turn")
    assert 0 < float(row["epochs"]) <= 20 == float(row["longest"])
    reached = float(row["scratch_accuracy"]) >= float(row["ceiling"]) - 0.05
    assert np.isfinite(float(row["scratch_epochs"])) == reached
    assert float(row["ceiling"]) > float(row["zero_shot_accuracy"]) + 0.2
    assert float(row["zero_shot_error"]) == pytest.approx(
        1 - float(row["zero_shot_accuracy"]), abs=0.06
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data=turned.npz",), "none is named"),
        (("data=turned.npz", "history=none/h.csv"), "none is no folder that may be written to"),
        (("data=unlabelled.npz", "history=h.csv", "card=card.safetensors"), "have no labels"),
        (("data=one.npz", "history=h.csv"), "there are 1 cases of 1 classes; legal are 20"),
    ],
)
def test_an_outcome_that_cannot_be_kept_is_not_measured(
    words: tuple[str, ...], message: str, told: Any, place: Path
) -> None:
    out = place / "nothing"
    given = ("model=model.safetensors", *MLP, "outcome=measure", f"out={out}")
    code, _, err = told(*given, *words)
    assert code == 2
    assert message in err
    assert not out.exists()
    assert not (place / "h.csv").exists()


def test_json_is_strict_where_a_new_model_never_comes_to_the_ceiling(
    told: Any, tmp_path: Path
) -> None:
    def strict(word: str) -> None:
        raise AssertionError(word)

    words = ("data=same.npz", "outcome=measure", f"history={tmp_path / 'h.csv'}", "format=json")
    slow = "training.learning_rate=1e-9"
    code, out, _ = told("model=model.safetensors", *MLP, slow, *words, f"out={tmp_path / 'out'}")
    assert code == 0
    for text in (out, (tmp_path / "out" / "judgement.json").read_text()):
        assert json.loads(text, parse_constant=strict)["outcome"]["scratch_epochs"] == "nan"


def test_numbers_that_numpy_has_no_type_for_are_read(told: Any, place: Path) -> None:
    halved = {
        k: torch.from_numpy(v).bfloat16() for k, v in load_file(place / "model.safetensors").items()
    }
    save_tensors(halved, place / "halved.safetensors")
    code, out, err = told("model=halved.safetensors", "data=same.npz", *MLP)
    assert code == 0, err
    assert "decision: as_is" in out


def test_a_judgement_is_kept(told: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told("model=model.safetensors", "data=same.npz", *MLP, f"out={out}")
    found = json.loads((out / "judgement.json").read_text())
    assert found["decision"] == "as_is"
    assert found["options"]["as_is"]["accuracy"][0] > 0.85


# ------------------------------------------------------------------------------ labels and classes


def accuracy(told: Any, *words: str) -> float:
    code, out, err = told("model=model.safetensors", *MLP, "format=json", *words)
    assert code == 0, err
    found: float = json.loads(out)["options"]["as_is"]["accuracy"][0]
    return found


def test_classes_that_are_absent_move_no_other(told: Any, place: Path) -> None:
    every = np.load(place / "same.npz")
    rows = np.isin(every["labels"], [3, 5, 7])
    some, labels = every["features"][rows], every["labels"][rows]
    names = [f"digit {9 - number}" for number in range(10)]  # not in the order of the alphabet
    np.savez(place / "some.npz", features=some, labels=labels)
    np.savez(place / "numerals.npz", features=some, labels=labels.astype(str))
    np.savez(place / "named.npz", features=some, labels=np.array(names)[labels])
    right = accuracy(told, "data=some.npz")
    assert right > 0.9
    assert accuracy(told, "data=numerals.npz") == right
    assert accuracy(told, "data=named.npz", f"classes=[{','.join(names)}]") == right
    code, _, err = told("model=model.safetensors", *MLP, "data=named.npz")
    assert code == 2
    assert "has 3 classes (digit 2, digit 4, digit 6), the model has 10" in err


def test_ten_and_more_numbers_in_words_are_not_put_in_the_order_of_the_alphabet() -> None:
    shape = Shape(1, 12)
    numbered = _numbered(np.array(["10", "2", "11", "0"]), shape, "it")
    assert numbered.tolist() == [10, 2, 11, 0]


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (np.array([0.0, np.nan, 1.0]), "no label for 1 of its cases"),
        (np.array([1, 2, 3]), "has the labels 1 to 3; the model's classes are 0 to 2"),
        (np.array([-1, 0, 1]), "has the labels -1 to 1"),
        (np.array([0, 1]), r"labels of shape \(2,\)"),
        (np.array([[0], [1], [2]]), r"labels of shape \(3, 1\)"),
        (np.array(["a", "b", "a"]), "has 2 classes .a, b., the model has 3"),
    ],
)
def test_labels_that_are_not_the_models_are_refused(
    labels: Any, problem: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", features=np.zeros((3, 4), np.float32), labels=labels)
    with pytest.raises(FedpactError, match=problem):
        read(tmp_path / "x.npz", None, Shape(4, 3))


def test_a_table_with_a_missing_label_is_refused_and_one_of_floats_is_not(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("a,y\n1,0.0\n2,2.0\n")
    labels = read(file, "y", Shape(1, 3, ("0", "1", "2"))).labels
    assert labels is not None
    assert labels.tolist() == [0, 2]
    file.write_text("a,y\n1,cat\n2,\n")
    with pytest.raises(FedpactError, match="no label for 1 of its cases"):
        read(file, "y", Shape(1, 2))


def test_cases_of_any_shape_are_laid_flat(told: Any, place: Path) -> None:
    every = np.load(place / "same.npz")
    square = every["features"].reshape(-1, 1, 8, 8)
    np.savez(place / "square.npz", features=square, labels=every["labels"])
    assert accuracy(told, "data=square.npz") == accuracy(told, "data=same.npz")


def test_data_of_other_classes_are_judged_by_what_compares_them(told: Any, place: Path) -> None:
    every = np.load(place / "same.npz")
    np.savez(place / "parity.npz", features=every["features"], labels=every["labels"] % 2 + 10)
    words = ("model=model.safetensors", *MLP, "data=parity.npz")
    leep = "reuse.measures=[{_target_: parties.reuse.leep.Leep}]"
    code, _, err = told(*words, leep)
    assert code == 2
    assert "say classes=other" in err
    found = json.loads(told(*words, leep, "classes=other", "format=json")[1])
    # What it says of digits tells the parities; of a model that says nothing LEEP is -log 2.
    assert -0.4 < found["measures"]["leep"]["value"] < 0
    assert found["options"]["as_is"]["accuracy"][0] == 0
    code, out, err = told(*words, "classes=other", "card=card.safetensors")
    assert code == 0, err
    assert "zero_shot_error" not in out
    assert "measures that compare classes are left out" in out


# ------------------------------------------------------------------------------------ artifacts


def put_artifact(folder: Path, inputs: Inputs, secret: Path | None, **facts: Any) -> Path:
    """The model as its maker would hand it over."""
    model, some = trained(), Digits(0, 2).split(0).training.features[:4]
    with torch.inference_mode():
        logits = model.eval()(torch.from_numpy(some)).numpy()
    known: dict[str, Any] = {
        "firm": "alpha",
        "model": "digits",
        "backbone": describe(Mlp((32,))),
        "inputs": inputs,
        "outputs": Outputs(tuple("0123456789")),
        "environment": {"torch": ">=2"},
        "licence": "MIT",
        "round": 0,
        "contract": "train_sharing",
    }
    card = Card(dict.fromkeys(CARD_FIELDS, "told") | {"licence": "MIT", "round": "0"})
    card = Card({**card.fields, "parent": "none", "contract": "train_sharing"})
    manifest = Manifest(**(known | facts))
    write_artifact(folder, manifest, weights_of(model), card, Golden(some, logits), secret)
    return folder


@pytest.fixture(scope="module")
def secret(place: Path) -> Path:
    (place / "keys").mkdir()
    return make_keys(place / "keys", "alpha")[0]


@pytest.fixture(scope="module")
def artifact(place: Path, secret: Path) -> Path:
    return put_artifact(place / "signed", Inputs((64,), 0.0, 1.0), secret)


def test_an_artifacts_manifest_names_backbone_and_classes(
    told: Any, place: Path, tmp_path: Path
) -> None:
    letters = Outputs(tuple("abcdefghij"))
    folder = put_artifact(tmp_path / "a", Inputs((64,), 0.0, 1.0), None, outputs=letters)
    code, _, err = told(f"model={folder}", "data=same.npz")
    assert code == 2  # the labels are numbers, the model's classes are letters
    assert "the model's classes are a, b, c" in err
    every = np.load(place / "same.npz")
    named = np.array(letters.classes)[every["labels"]]
    np.savez(place / "letters.npz", features=every["features"], labels=named)
    code, out, err = told(f"model={folder}", "data=letters.npz")
    assert code == 0, err
    assert "decision: as_is" in out
    code, _, err = told(f"model={folder}", "data=same.npz", *MLP)
    assert "Leave them out, or give the file" in err


def widths(fields: Any) -> Any:
    return lambda said: said["backbone"].update(fields={"widths": fields})


HOSTILE: dict[str, Any] = {
    "no classes": lambda said: said.update(outputs=[]),
    "no backbone": lambda said: said["backbone"].pop("class"),
    "a word for a shape": lambda said: said["inputs"].update(shape="x"),
    "other code": lambda said: said["backbone"].update(
        {"class": "simulations.judge.__main__.Parts", "fields": {}}
    ),
    "means of no channel": lambda said: said["inputs"].update(mean=[0.0] * 7),
    "the firm's environment": widths("${oc.env:FEDPACT_WORD}"),
    "a network of terabytes": widths([10**6, 10**6]),
    "a network past any": widths([2**62, 2**62]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_manifest_is_refused_before_anything_is_built(
    case: str,
    told: Any,
    artifact: Path,
    secret: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FEDPACT_WORD", "quagga")
    folder = tmp_path / "hostile"
    shutil.copytree(artifact, folder)
    said = json.loads((folder / "manifest.json").read_text())
    HOSTILE[case](said)
    (folder / "manifest.json").write_text(json.dumps(said))
    key = f"gate.keys.alpha={secret.with_suffix('.pub')}"
    gated = ("gate=fast", key, f"out={tmp_path / 'out'}")
    code, out, _ = told(f"model={folder}", "data=none.npz", *gated)
    assert code == 1  # though there are no data: they are not come to
    assert "gate: refuse" in out
    assert not Adoption.from_json((tmp_path / "out" / "adoption.json").read_text()).adopted
    (folder / "manifest.sig").write_bytes(sign((folder / "manifest.json").read_bytes(), secret))
    code, out, err = told(f"model={folder}", "data=same.npz", "gate=fast", key)
    assert code == 1  # alpha's own signature is no excuse
    assert str(list("quagga")) not in out + err
    if case != "means of no channel":  # which nobody looks at but the gate
        code, _, err = told(f"model={folder}", "data=same.npz")
        assert code == 2
        assert str(list("quagga")) not in err


def test_what_the_gate_read_is_what_is_judged(artifact: Path, secret: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moving"
    shutil.copytree(artifact, folder)
    parcel = collect(folder)
    gate = Gate(keys={"alpha": str(secret.with_suffix(".pub"))})
    assert origin(gate, parcel).adopted
    shutil.rmtree(folder)
    assert of_artifact(parcel.open(), folder).names == tuple("0123456789")


GENUINE: dict[str, Inputs] = {
    "a wider range": Inputs((64,), -5.0, 5.0),
    "channels and group": Inputs((64,), 0.0, 1.0, "grey", group="C4"),
    "pixels to 255, scaled": Inputs((64,), 0.0, 255.0, mean=(0.0,), std=(255.0,)),
    "a mean a feature": Inputs((64,), -1.0, 3.0, mean=(1.0,) * 64, std=(2.0,) * 64),
}


@pytest.mark.parametrize("case", GENUINE)
def test_data_inside_the_declared_range_pass(
    case: str, told: Any, secret: Path, tmp_path: Path
) -> None:
    folder = put_artifact(tmp_path / "a", GENUINE[case], secret)
    key = f"gate.keys.alpha={secret.with_suffix('.pub')}"
    words = (f"model={folder}", "data=same.npz", "gate=fast", "gate.max_ece=0.3", key)
    code, out, err = told(*words)
    assert code == 0, out + err
    assert "taken as the maker declares" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("data=same.npz", "inputs.low=0", "inputs.high=1"), 1, "block 6 input contract"),
        (("data=same.npz", "inputs.low=-5", "inputs.high=5.0"), 0, "mean, std, group"),
        (("data=same.npz", "inputs.channels=RGB"), 1, "channels 'none'; yours have 'RGB'"),
        (("data=same.npz", "inputs.mean=[0.5]", "inputs.std=[1.0]"), 1, "yours have (0.5,)"),
        (("data=large.npz",), 1, "yours go from -5 to 7"),
        (("data=large.npz", "inputs.low=0", "inputs.high=1"), 2, "the data go from 0 to 7"),
        (("data=same.npz", "inputs.lo=0"), 2, "Did you mean 'low'?"),
        (("data=same.npz", "inputs.low=x"), 2, "legal is two numbers, low < high"),
    ],
)
def test_a_firm_may_state_its_contract_of_inputs(
    words: tuple[str, ...],
    code: int,
    message: str,
    told: Any,
    place: Path,
    secret: Path,
    tmp_path: Path,
) -> None:
    every = np.load(place / "same.npz")
    np.savez(place / "large.npz", features=7 * every["features"], labels=every["labels"])
    folder = put_artifact(tmp_path / "a", Inputs((64,), -5.0, 5.0), secret)
    key = f"gate.keys.alpha={secret.with_suffix('.pub')}"
    found, out, err = told(f"model={folder}", "gate=fast", "gate.max_ece=0.3", key, *words)
    assert message in out + err
    assert found == code


def test_the_firms_own_model_and_arm_are_compared_where_they_are_given(
    told: Any, artifact: Path, secret: Path, tmp_path: Path
) -> None:
    key = f"gate.keys.alpha={secret.with_suffix('.pub')}"
    words = (f"model={artifact}", "data=same.npz", "gate=fast", "gate.max_ece=0.3", key)
    own = ("own=model.safetensors", *MLP, "card=card.safetensors")
    code, out, err = told(*words, *own, "format=json")
    assert code == 0, out + err
    checks = {c["number"]: c for c in json.loads(out)["adoption"]["checks"]}
    quality = checks[14]["value"]
    assert 0 < quality["arm"] < 0.5
    assert quality["gain_at_least"] <= quality["gain"] <= quality["gain_at_most"]
    assert checks[15]["value"]["disagreement"] == 0  # it is the very same model
    code, out, _ = told(*words, *own, "gate.max_arm=0.0001")
    assert code == 1
    assert "Its ARM is" in out
    code, _, err = told(*words, "gate.max_arm=1")
    assert code == 2
    assert "Give card=FILE or source=DATA" in err
    small = tmp_path / "small.safetensors"
    save_file(weights_of(Mlp((32,)).build(64, 3, 0)), small)
    code, _, err = told(*words, f"own={small}", *MLP)
    assert code == 2
    assert "tells apart 3 classes" in err


@pytest.mark.parametrize("form", ["gate.keys.alpha={}", "gate.keys={{alpha: {}}}"])
def test_a_key_is_pinned_as_the_help_says(
    form: str, told: Any, artifact: Path, secret: Path
) -> None:
    words = (f"model={artifact}", "data=same.npz", "gate=fast", "gate.max_ece=0.3")
    code, out, _ = told(*words)
    assert code == 1
    assert "add it to the gate's keys (gate.keys.FIRM=FILE)" in out
    code, out, err = told(*words, form.format(secret.with_suffix(".pub")))
    assert code == 0, out + err


def test_the_gate_lets_a_signed_model_in_and_remembers_it(
    told: Any, artifact: Path, place: Path, tmp_path: Path
) -> None:
    key = f"gate.keys.alpha={place / 'keys' / 'alpha.pub'}"
    words = (f"model={artifact}", "data=same.npz", f"out={tmp_path}", f"ledger={tmp_path / 'l'}")
    code, out, err = told(*words, "gate=fast", "gate.max_ece=0.3", key)
    assert code == 0, out + err
    assert "gate: adopt" in out
    assert "decision: as_is" in out
    found = Adoption.from_json((tmp_path / "adoption.json").read_text())
    assert found.adopted
    pinned = load(tmp_path / "l").pinned("alpha", "digits")
    assert pinned is not None
    assert pinned.digest == found.digest


def test_the_gate_keeps_a_model_out_that_was_changed_on_its_way(
    told: Any, artifact: Path, place: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(artifact, folder)
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    key = f"gate.keys.alpha={place / 'keys' / 'alpha.pub'}"
    code, out, _ = told(f"model={folder}", "data=same.npz", "gate=fast", key)
    assert code == 1
    assert "gate: refuse" in out
    assert "block 1 files" in out
    assert "decision:" not in out


GIVEN = ("model=model.safetensors", "data=same.npz", *MLP)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data=same.npz",), "model=... is missing"),
        (("model=model.safetensors", "dat=x"), "was it meant by 'dat'"),
        (("model=model.safetensors", "data=none.npz", *MLP), "data=none.npz"),
        (("model=none", "data=same.npz", *MLP), "cannot be read as safetensors"),
        (("model=model.safetensors", "data=same.npz"), "Name it: backbone=mlp"),
        (("model=model.safetensors", "data=same.npz", *WIDE), "does not fit backbone Mlp"),
        (("model=model.safetensors", "data=same.npz", "backbone=cnn"), "does not fit backbone Cnn"),
        (("model=model.safetensors", "data=same.csv", *MLP), "65 features a case; the model takes"),
        (("model=model.safetensors", "data=same.csv", "label=x", *MLP), "label=x is no column"),
        (("model=model.safetensors", "data=same.npz", "reuse.requird=1"), "reuse.required"),
        (("model", "data"), "is no key=value"),
        (("model=m", "data=d", "format=xml"), "legal: text, json"),
        (("model=m", "data=d", "seed=x"), "seed is 'x'"),
        (("calibrate=none.csv",), "calibrate=none.csv does not exist"),
        (("model=m", "data=d", "seed=99999999999999999999"), "below 2^63"),
        ((*GIVEN, "modle=3"), "Did you mean 'model'?"),
        ((*GIVEN, "zzzzqq=1"), "features, format, gate, history"),
        ((*GIVEN, "training.device=cuda:99"), "Use training.device=auto"),
        ((*GIVEN, "history=none.csv"), "history=none.csv does not exist"),
        ((*GIVEN, "out=same.npz"), "Name one"),
        ((*GIVEN, "out=same.npz/x"), "Name one"),
        ((*GIVEN, "out=."), "legal is a new folder"),
        ((*GIVEN, "ledger=l"), "Choose gate=fast or gate=full"),
        ((*GIVEN, "gate=fast"), "is a file, and the gate looks at an artifact"),
        ((*GIVEN, "classes=[a,b]"), "classes has 2 names and the model 10 classes"),
        ((*GIVEN, "classes=a"), "two or more different names"),
        ((*GIVEN, "classes=other", "outcome=measure"), "Leave out one of the two"),
        ((*GIVEN, "source=none.npz"), "source=none.npz does not exist"),
        (("model=model.safetensors", f"data={'x' * 300}.csv", *MLP), "File name too long"),
        (("model=m.pt", "data=same.npz", *MLP), "artifact.convert"),
        (("model=bare.safetensors", "data=same.npz", *MLP), "Give the file of a whole model"),
    ],
)
def test_a_mistake_is_explained(told: Any, words: tuple[str, ...], message: str) -> None:
    code, _, err = told(*words)
    assert code == 2
    assert message in err


def test_images_are_read_by_class_and_made_grey(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name, shade in (("cat", 255), ("dog", 0)):
        (tmp_path / name).mkdir()
        image.new("RGB", (20, 10), (shade, shade, shade)).save(tmp_path / name / "a.png")
    target = read(tmp_path, None, Shape(16, 2))
    assert target.features.shape == (2, 16)
    assert target.features.tolist() == [[1.0] * 16, [0.0] * 16]
    assert target.labels is not None
    assert target.labels.tolist() == [0, 1]
    named = read(tmp_path, None, Shape(16, 3, ("dog", "bird", "cat"))).labels
    assert named is not None
    assert named.tolist() == [2, 0]
    with pytest.raises(FedpactError, match="no square image"):
        read(tmp_path, None, Shape(15, 2))
    (tmp_path / "cat" / "b.png").write_bytes(b"no image")
    with pytest.raises(FedpactError, match=r"b\.png cannot be read as an image .*take it out"):
        read(tmp_path, None, Shape(16, 2))


def test_a_table_with_words_or_gaps_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("a,b\n1,x\n2,y\n")
    with pytest.raises(FedpactError, match="columns that are no numbers: b"):
        read(file, None, Shape(2, 2))
    file.write_text("a,b\n1,\n2,3\n")
    with pytest.raises(FedpactError, match="missing or not finite"):
        read(file, None, Shape(2, 2))
    file.rename(tmp_path / "X.CSV")  # its ending says what it is in capitals too
    with pytest.raises(FedpactError, match="missing or not finite"):
        read(tmp_path / "X.CSV", None, Shape(2, 2))


@pytest.mark.parametrize("kind", ["empty", "npy", "scalar", "objects"])
def test_an_npz_file_that_holds_no_cases_is_refused(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    rows = np.zeros((3, 4), np.float32)
    if kind == "empty":
        file.write_bytes(b"")
    elif kind == "npy":
        np.save(tmp_path / "x.npy", rows)
        (tmp_path / "x.npy").rename(file)
    elif kind == "scalar":
        np.savez(file, features=np.float32(1))
    else:
        np.savez(file, features=rows, labels=np.array(["a", 1, None], object))
    with pytest.raises(FedpactError, match=r"legal (is|are) .*(Write it|Write a row)"):
        read(file, None, Shape(4, 3))


# ---------------------------------------------------------------------------------- calibration


def linear(noise: float, scratch: float) -> History:
    """Eight kinds of ten cases whose cost follows from the error, up to noise."""
    rng = np.random.default_rng(0)
    past = History()
    for i in range(80):
        error, probe = rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.2)
        epochs = np.expm1(2 * error + noise * rng.normal())
        row: dict[str, Any] = {"case": str(i), "kind": f"k{i % 8}", "epochs": max(epochs, 0.0)}
        row |= {"scratch_epochs": scratch, "ceiling": 1 - probe}
        row |= {"zero_shot_error": error, "linear_probe": probe, "zero_shot_accuracy": 1 - error}
        past = past.with_case({**row, "probe_accuracy": 1 - 0.5 * error})
    return past


def test_a_judge_that_knows_saves_what_there_is_to_save() -> None:
    judge = Judge((ZeroShot(), LinearProbe()))
    found = calibrate(judge, linear(noise=0.02, scratch=3.0), 20.0)
    assert found.cases == 80
    assert found.kinds == 8
    assert found.error < 0.2
    assert found.coverage >= 0.85
    assert found.decisions["fine_tune"] > 0.5
    # Cheap cases are reused and dear ones trained anew; a few are probed first.
    assert found.epochs["known_outcome"] <= found.epochs["judge"]
    assert found.epochs["judge"] < min(found.epochs["always_scratch"], found.epochs["always_reuse"])
    assert found.saved_scratch == pytest.approx(
        1 - found.epochs["judge"] / found.epochs["always_scratch"]
    )


def test_a_case_that_was_never_finished_from_scratch_counts_as_the_longest() -> None:
    past = linear(noise=0.02, scratch=float("nan"))
    found = calibrate(Judge((ZeroShot(), LinearProbe())), past, 20.0)
    assert found.epochs["always_scratch"] == 20
    assert found.decisions["fine_tune"] > 0.9


def test_a_record_is_that_of_the_judges_own_settings_and_says_what_was_asked_for() -> None:
    judge = Judge((ZeroShot(), LinearProbe()), miss=0.3, outside=0.02)
    narrow = calibrate(judge, linear(noise=0.3, scratch=3.0))
    assert "asked for 70 %" in "\n".join(calibrated(narrow))
    wide = calibrate(replace(judge, miss=0.02), linear(noise=0.3, scratch=3.0))
    assert "asked for 98 %" in "\n".join(calibrated(wide))
    assert narrow.coverage < wide.coverage
    strict = calibrate(replace(judge, outside=0.45), linear(noise=0.3, scratch=3.0))
    assert strict.abstained == strict.decisions["abstain"] > narrow.abstained + 0.2


def test_a_history_of_two_kinds_is_too_short_for_a_record_and_says_why() -> None:
    rows = tuple({**row, "kind": f"k{i % 2}"} for i, row in enumerate(linear(0.1, 3.0).rows))
    with pytest.raises(FedpactError, match=r"80 cases of 2 kinds.*takes 20 cases of 2 kinds bes"):
        calibrate(Judge((ZeroShot(), LinearProbe())), History(rows))


def test_measures_that_the_history_lacks_are_named() -> None:
    with pytest.raises(FedpactError, match="zero_shot_cross_entropy, linear_probe"):
        calibrate(Judge((ZeroShot("cross_entropy"), LinearProbe())), linear(0.1, 3.0), 20.0)
