"""The judge's command: a model and data of a user's own, in any of their formats."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file

from parties.backbones.cnn import Cnn
from parties.backbones.mlp import Mlp
from parties.datasets.digits import Digits
from parties.exchange import FedpactError
from parties.reuse.adoption import Adoption
from parties.reuse.artifact import Golden, write_artifact
from parties.reuse.calibration import calibrate
from parties.reuse.card import CARD_FIELDS, Card
from parties.reuse.history import History
from parties.reuse.judge import Judge
from parties.reuse.ledger import load
from parties.reuse.linear_probe import LinearProbe
from parties.reuse.manifest import Inputs, Manifest, Outputs, describe
from parties.reuse.profile import Profile
from parties.reuse.signing import make_keys
from parties.reuse.zero_shot import ZeroShot
from parties.shifts.rotation import Rotation
from parties.training import Training, weights_of
from simulations.judge.__main__ import main
from simulations.judge.data import read
from simulations.judge.words import calibrated

TRAINING = Training(epochs=10, batch_size=32, learning_rate=0.1, momentum=0.0, schedule="constant")
SMALL = ("training.batch_size=32", "training.momentum=0.0", "training.schedule=constant")
WIDE = ("backbone=mlp", "backbone.widths=[64]")
MLP = ("backbone=mlp", "backbone.widths=[32]")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of digits, its card, and other digits in several formats."""
    folder = tmp_path_factory.mktemp("judge")
    own, other = (Digits(i, 2).split(0).training for i in (0, 1))
    model = Mlp((32,)).build(64, 10, 0)
    TRAINING.fit(model, own.features, own.labels, 0)
    save_file(weights_of(model), folder / "model.safetensors")
    card = Profile.of(model, own.features, own.labels, np.random.default_rng(0))
    card.save(folder / "card.safetensors")
    turned = Rotation(60).apply(other.features, other.ids, 1, 2, 0)
    np.savez(folder / "same.npz", features=other.features, labels=other.labels)
    np.savez(folder / "own.npz", features=own.features, labels=own.labels)
    np.savez(folder / "turned.npz", features=turned, labels=other.labels)
    np.savez(folder / "unlabelled.npz", features=turned)
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
    assert 0 < float(row["epochs"]) <= 20
    assert float(row["ceiling"]) > float(row["zero_shot_accuracy"]) + 0.2
    assert float(row["zero_shot_error"]) == pytest.approx(
        1 - float(row["zero_shot_accuracy"]), abs=0.06
    )


def test_a_judgement_is_kept(told: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told("model=model.safetensors", "data=same.npz", *MLP, f"out={out}")
    found = json.loads((out / "judgement.json").read_text())
    assert found["decision"] == "as_is"
    assert found["options"]["as_is"]["accuracy"][0] > 0.85


def test_a_folder_with_a_manifest_names_its_own_backbone(told: Any, place: Path) -> None:
    folder = place / "artifact"
    folder.mkdir()
    model = Cnn((4,)).build(64, 10, 0)
    save_file(weights_of(model), folder / "weights.safetensors")
    manifest = {
        "backbone": {"class": "parties.backbones.cnn.Cnn", "fields": {"channels": [4]}},
        "inputs": {"shape": [64]},
        "outputs": {"classes": list("abcdefghij")},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    code, _, err = told("model=artifact", "data=same.npz")
    assert code == 2  # the labels are numbers, the model's classes are letters
    assert "the model's classes are a, b, c" in err


@pytest.fixture(scope="module")
def artifact(place: Path) -> Path:
    """The model as its maker would hand it over, signed."""
    own = Digits(0, 2).split(0).training
    model = Mlp((32,)).build(64, 10, 0)
    TRAINING.fit(model, own.features, own.labels, 0)
    some = own.features[:4]
    with torch.inference_mode():
        logits = model.eval()(torch.from_numpy(some)).numpy()
    (place / "keys").mkdir()
    secret, _ = make_keys(place / "keys", "alpha")
    manifest = Manifest(
        firm="alpha",
        model="digits",
        backbone=describe(Mlp((32,))),
        inputs=Inputs((64,), 0.0, 1.0),
        outputs=Outputs(tuple("0123456789")),
        environment={"torch": ">=2"},
        licence="MIT",
        round=0,
        contract="train_sharing",
    )
    card = Card(dict.fromkeys(CARD_FIELDS, "told") | {"licence": "MIT", "round": "0"})
    card = Card({**card.fields, "parent": "none", "contract": "train_sharing"})
    folder = place / "signed"
    write_artifact(folder, manifest, weights_of(model), card, Golden(some, logits), secret)
    return folder


def test_the_gate_lets_a_signed_model_in_and_remembers_it(
    told: Any, artifact: Path, place: Path, tmp_path: Path
) -> None:
    key = f"gate.keys.alpha={place / 'keys' / 'alpha.pub'}"
    words = (f"model={artifact}", "data=same.npz", f"out={tmp_path}", f"ledger={tmp_path / 'l'}")
    code, out, err = told(*words, "gate=fast", "gate.max_ece=0.3", f"+{key}")
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
    key = f"+gate.keys.alpha={place / 'keys' / 'alpha.pub'}"
    code, out, _ = told(f"model={folder}", "data=same.npz", "gate=fast", key)
    assert code == 1
    assert "gate: refuse" in out
    assert "block 1 files" in out
    assert "decision:" not in out


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
        (("calibrate=none.csv",), "Choose measures that the history has"),
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
    target = read(tmp_path, None, 16, ())
    assert target.features.shape == (2, 16)
    assert target.features.tolist() == [[1.0] * 16, [0.0] * 16]
    assert target.labels is not None
    assert target.labels.tolist() == [0, 1]
    named = read(tmp_path, None, 16, ("dog", "bird", "cat")).labels
    assert named is not None
    assert named.tolist() == [2, 0]
    with pytest.raises(FedpactError, match="no square image"):
        read(tmp_path, None, 15, ())
    (tmp_path / "cat" / "b.png").write_bytes(b"no image")
    with pytest.raises(FedpactError, match=r"b\.png cannot be read as an image"):
        read(tmp_path, None, 16, ())


def test_a_table_with_words_or_gaps_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("a,b\n1,x\n2,y\n")
    with pytest.raises(FedpactError, match="columns that are no numbers: b"):
        read(file, None, 2, ())
    file.write_text("a,b\n1,\n2,3\n")
    with pytest.raises(FedpactError, match="missing or not finite"):
        read(file, None, 2, ())


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
