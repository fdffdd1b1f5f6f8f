"""What the tests share: small studies, a recording grid, and a conformance check a kind of part."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import hydra
import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import Message, RecordDict
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from parties import descent, fitting, stacks
from parties.backbones import Backbone
from parties.backbones.canonical import Canonical
from parties.backbones.cnn import Cnn
from parties.backbones.mlp import Mlp
from parties.datasets import Dataset
from parties.datasets.fashion_mnist import FILES, FashionMnist
from parties.datasets.own import OwnData
from parties.datasets.own.examples import EXAMPLES
from parties.exchange import FedpactError, Packed, Weights
from parties.products import one_dnn
from parties.reuse import CEILING, COST, ReuseMeasure, Target
from parties.reuse.profile import Profile, Source
from parties.training import weights_of
from parties.wire import read_records, write_records
from server.contracts import Contract
from server.strategies import State, Strategy
from simulations.engines import apps
from tests.inline_grid import OwnGrid, contexts_of, server_context


class Told(NamedTuple):
    """Exit status of a command, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


@contextmanager
def large_from(least: int | None) -> Iterator[None]:
    """Products of so many multiplications and more by oneDNN, or none, whatever the processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "AMD", "avx512_f": True})
        product = one_dnn.__wrapped__()
        if product is None and least is not None:
            pytest.skip("torch is built without oneDNN here")
        for module in (descent, stacks):
            patch.setattr(module, "one_dnn", lambda: None if least is None else product)
            patch.setattr(module, "LARGE", least or 0)
        fitting._used.cache_clear()  # modules that have asked already
        yield
        fitting._used.cache_clear()


SMALL_LOANS = (
    "parties.lender_a.dataset.clients=1500",
    "parties.lender_b.dataset.clients=1500",
    "training.epochs=4",
    "study.seeds=2",
    "progress=none",
)
SMALL_HEART = (
    "experiment=heart",
    "study.seeds=2",
    "strategy.rounds=2",
    "training.epochs=2",
    "progress=none",
)
SMALL_POOL = (
    "study=model_sharing",
    "market=own_cases",
    "strategy=fedavg",
    "study.seeds=1",
    "strategy.rounds=1",
    "training.epochs=1",
    "progress=none",
)


def write_fashion(folder: Path, packed: bool = True) -> Path:
    """Fashion-MNIST's four files with 400 + 100 made-up images, in the real format."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 200, (10, 28, 28))
    for (images, names), count in zip((FILES[:2], FILES[2:]), (400, 100), strict=True):
        labels = rng.permutation(np.arange(count) % 10).astype(np.uint8)
        pixels = (patterns[labels] + rng.integers(0, 56, (count, 28, 28))).astype(np.uint8)
        for name, values in ((images, pixels), (names, labels)):
            sizes = np.array(values.shape, ">u4").tobytes()
            content = bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, 1))
            else:
                (folder / name).write_bytes(content)
    return folder


def write_own(folder: Path, kind: str = "csv", rows: int = 300) -> Path:
    """Made-up data of a firm, as an example describes them; where the description is."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(350)
    description = folder / "data.yaml"
    description.write_text(EXAMPLES[kind])
    if kind == "images":
        for i in range(rows):
            shade = rng.integers(0, 100, (8, 8)) + 150 * (i % 2)
            path = folder / "photos" / ("bag", "shoe")[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(shade.astype(np.uint8)).save(path)
        return description
    income = rng.lognormal(10, 1, rows).round()
    paid = rng.random(rows) < np.where(income > np.median(income), 0.9, 0.5)
    table = pd.DataFrame({"client": np.arange(rows) + 7, "income": income})
    table["housing"] = rng.choice(["rent", "own", "other"], rows)
    if kind == "csv":
        table.loc[::10, "income"] = np.nan
        table["age"] = rng.integers(18, 90, rows)
        table["paid_back"] = np.where(paid, "yes", "no")
        table["name"], table["street"] = "somebody", "somewhere"
        table.to_csv(folder / "clients.csv", index=False)
        return description
    table["client"] = [f"client {i}" for i in range(rows)]
    table["paid_back"] = pd.Series(paid, dtype="boolean")
    table["part"] = np.resize(["training", "training", "validation", "contested"], rows)
    table["seed"] = pd.Series(np.where(np.arange(rows) < rows // 2, 0, 1), dtype="Int64")
    table.to_parquet(folder / "clients.parquet")
    return description


def config_of(*overrides: str) -> DictConfig:
    """The configuration that these overrides compose."""
    with hydra.initialize_config_module("conf", version_base="1.3"):
        return hydra.compose("config", list(overrides))


def plain(*overrides: str) -> Any:
    """The same as plain containers, resolved."""
    return OmegaConf.to_container(config_of(*overrides), resolve=True)


def run_config(folder: Path, *overrides: str) -> dict[str, Any]:
    """A run config for the two apps, and the folder made ready."""
    folder.mkdir(parents=True, exist_ok=True)
    return apps.run_config(json.dumps(plain(*overrides)), folder)


class RecordingGrid(OwnGrid):
    """Notes every message of another grid: (sender, receiver, packed, message)."""

    def __init__(self, inner: OwnGrid, names: dict[int, str]) -> None:
        super().__init__(inner.get_node_ids())
        self.inner, self.names = inner, names
        self.log: list[tuple[str, str, Packed]] = []

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        raise AssertionError("the operator asks through send_and_receive only")

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        sent = list(messages)
        for m in sent:
            name = self.names[m.metadata.dst_node_id]
            self.log.append(("operator", name, packed_in(m.content)))
        replies = self.inner.send_and_receive(sent, timeout=timeout)
        for m in (m for m in replies if m.has_content()):
            name = self.names[m.metadata.src_node_id]
            self.log.append((name, "operator", packed_in(m.content)))
        return list(replies)


def recorded(packed: Packed, tag: str = "t") -> RecordDict:
    """One message as Flower carries it."""
    return write_records([(tag, packed)])


def packed_in(record: RecordDict) -> Packed:
    """The reverse of `recorded`."""
    ((_, packed),) = read_records(record)
    return packed


def hold_on(grid: OwnGrid, config: dict[str, Any]) -> None:
    """Run the ServerApp of a run config on a grid."""
    apps.server(grid, server_context(config))


def firms_of(config: dict[str, Any]) -> list[str]:
    """The study's firms, by name."""
    return sorted(json.loads(config["config"])["parties"])


def contexts(config: dict[str, Any]) -> dict[int, Any]:
    return contexts_of(firms_of(config), apps.PARTY, config)


# ------------------------------------------------------------------------------ conformance checks


def check_contract(contract: Contract) -> None:
    """Its terms say what its switches say; models cross only where they are shared."""
    terms = contract.terms(3)
    assert terms.contract == contract.name
    assert (terms.models, terms.predictions) == (contract.models, contract.predictions)
    assert terms.rounds == (3 if contract.models else 0)
    seen = " ".join(terms.operator_sees("contested"))
    assert ("weights" in seen) == contract.models
    assert ("contested clients, to forward" in seen) == contract.predictions


def check_strategy(strategy: Strategy) -> None:
    """One firm is the identity, where one is enough, and the order of replies does not matter."""
    rng = np.random.default_rng(0)

    def weights(examples: int) -> Weights:
        return Weights({"w": rng.normal(size=(3, 2)).astype(np.float32)}, examples)

    alone = weights(7)

    def admits(firms: int) -> bool:
        try:
            strategy.check(firms)
        except FedpactError:
            return False
        return True

    firms = next(n for n in range(5, 100) if admits(n))
    updates = {f"firm_{i}": weights(10 * i + 5) for i in range(firms)}
    if not strategy.combines:
        assert strategy.combine(updates, State()).published is None
        return
    if admits(1):
        one = strategy.combine({"only": alone}, State()).published
        assert one is not None
        np.testing.assert_array_equal(one.arrays["w"], alone.arrays["w"])
    forth = strategy.combine(updates, State()).published
    back = strategy.combine(dict(reversed(updates.items())), State()).published
    assert forth is not None
    assert back is not None
    np.testing.assert_array_equal(forth.arrays["w"], back.arrays["w"])
    assert forth.examples == sum(updates[n].examples for n in strategy.trainers(list(updates)))


def check_backbone(backbone: Backbone) -> None:
    """Logits a class; the seed alone fixes the parameters, and no global state is touched.

    For tables and for images, 8x8 and 28x28; a network for images need not take tables.
    """
    import torch

    before = torch.random.get_rng_state()
    for inputs, classes in ((5, 2), (64, 10), (784, 10)):
        if inputs == 5 and isinstance(backbone, Cnn | Canonical):
            continue
        first, again = (backbone.build(inputs, classes, 3) for _ in range(2))
        assert torch.equal(before, torch.random.get_rng_state())
        poses = isinstance(backbone, Canonical)  # its module tells poses, not classes
        told = backbone.canonicalizer.group.order if poses else classes
        assert first.eval()(torch.zeros(4, inputs)).shape == (4, told)
        for name, value in weights_of(first).items():
            np.testing.assert_array_equal(value, weights_of(again)[name])


def check_dataset(dataset: Dataset) -> None:
    """Parts are disjoint, and the same with the same seed; another seed gives another split."""
    if isinstance(dataset, FashionMnist) and not dataset.installed:
        with TemporaryDirectory() as folder:
            check_dataset(replace(dataset, folder=str(write_fashion(Path(folder)))))
        return
    if isinstance(dataset, OwnData) and not Path(dataset.description).exists():
        with TemporaryDirectory() as folder:
            check_dataset(replace(dataset, description=str(write_own(Path(folder)))))
        return
    split, again, other = dataset.split(0), type(dataset).split(dataset, 0), dataset.split(1)
    parts = {
        name: getattr(split, name)
        for name in ("training", "validation", "contested", "held_out")
        if getattr(split, name) is not None
    }
    everyone = np.concatenate([p.ids for p in parts.values()])
    assert len(np.unique(everyone)) == len(everyone)
    for name, part in parts.items():
        np.testing.assert_array_equal(part.ids, getattr(again, name).ids)
        np.testing.assert_array_equal(part.features, getattr(again, name).features)
        assert part.features.dtype == np.float32
        assert np.all(np.isfinite(part.features))
    assert not np.array_equal(split.training.ids, other.training.ids)
    assert set(np.unique(split.training.labels)) <= set(range(dataset.classes))
    for part in ("validation", "contested"):
        if part in parts:
            ids, labels = dataset.outcomes(0, part)
            np.testing.assert_array_equal(ids, parts[part].ids)
            assert len(labels) == len(ids)
            assert not hasattr(parts[part], "labels")


def check_reuse(measure: ReuseMeasure) -> None:
    """Finite, fixed by the generator, blind to the order of examples; the model stays as it was.

    On the CPU, and on a device that is not the CPU where there is one.
    """
    import torch

    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5)).astype(np.float32)
    labels = rng.integers(0, 3, 60)
    moved = (1.3 * features + 0.2).astype(np.float32)
    model = Mlp((6, 4)).build(5, 3, 0)
    model[1].eval()  # modes that differ from module to module stay so
    source = Source(Profile.of(model, features, labels, rng), features, labels)

    def score(rows: Any, told: Any = labels) -> Any:
        paired = replace(source, features=features[rows])
        target = Target(moved[rows], None if told is None else told[rows])
        return measure.score(model, paired, target, np.random.default_rng(7))

    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    found = score(np.arange(60))
    assert (found.measure, found.needs_labels) == (measure.name, measure.needs_labels)
    assert found.higher_is_better == measure.higher_is_better
    assert measure.forecasts in (COST, CEILING)
    assert np.isfinite(found.value)
    assert found.seconds >= 0
    assert found.floor is None or 0 <= found.floor < np.inf
    again, turned = score(np.arange(60)), score(np.random.default_rng(1).permutation(60))
    assert (again.value, again.layers, again.floor) == (found.value, found.layers, found.floor)
    np.testing.assert_allclose(turned.value, found.value, rtol=1e-5, atol=1e-9)
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    if measure.needs_labels:
        try:
            score(np.arange(60), None)
        except FedpactError as fault:
            assert "needs labels" in str(fault)  # noqa: PT017
        else:
            raise AssertionError("a measure that needs labels was given none, and answered")
    else:
        assert score(np.arange(60), None).value == found.value
    if torch.cuda.is_available():
        model.cuda()
        np.testing.assert_allclose(score(np.arange(60)).value, found.value, rtol=1e-3, atol=1e-6)
        assert next(model.parameters()).device.type == "cuda"
