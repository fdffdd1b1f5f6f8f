"""A firm's own data: read as described, everything wrong named, the same parts in every firm."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from parties.datasets import Split, read_csv
from parties.datasets.own import OwnData, read
from parties.datasets.own.description import Finding
from parties.datasets.own.examples import EXAMPLES
from parties.datasets.own.parts import divide, id_of
from parties.datasets.taiwan_credit import COLUMNS, FILE, SHA256, STATUS, TaiwanCredit
from parties.exchange import FedpactError
from simulations.results import RunFolder
from simulations.study import study_of
from tests.checks import (
    SMALL_LOANS,
    SMALL_POOL,
    check_dataset,
    contexts,
    hold_on,
    plain,
    run_config,
    write_own,
)
from tests.inline_grid import InlineGrid

PARTS = ("training", "validation", "contested", "held_out", "common")
TINY = {
    "file": "clients.csv",
    "id": {"column": "client", "type": "number"},
    "label": {"column": "good", "classes": [0, 1]},
    "features": {
        "x": {"type": "number", "low": 0, "high": 10, "centre": 2, "spread": 4},
        "kind": {"type": "category", "levels": ["a", "b"], "missing": True},
    },
    "parts": {"column": "part"},
}


def write(folder: Path, table: str, **changes: Any) -> Path:
    """A small csv and its description; a change of None takes a key away."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clients.csv").write_text(table)
    said = {k: v for k, v in {**TINY, **changes}.items() if v is not None}
    (folder / "data.yaml").write_text(yaml.safe_dump(said))
    return folder / "data.yaml"


def findings(path: Path) -> list[Finding]:
    return list(read(path).findings)


HEAD = b"IHDR" + bytes.fromhex("000186a0000186a00800000000")  # 100,000 x 100,000 pixels
GOOD = """client,x,kind,good,part
9,2,a,1,training
3,6,b,0,training
5,10,,1,contested
4,0,a,0,validation
"""


# ------------------------------------------------------------------------------------ what is read


def test_numbers_and_levels_become_the_features_that_the_description_says(tmp_path: Path) -> None:
    split = OwnData(str(write(tmp_path, GOOD))).split(0)
    np.testing.assert_array_equal(split.training.ids, [3, 9])
    np.testing.assert_array_equal(split.training.labels, [0, 1])
    # kind=a, kind=b, kind missing, (x - 2) / 4
    np.testing.assert_array_equal(split.training.features, [[0, 1, 0, 1], [1, 0, 0, 0]])
    assert split.contested is not None
    np.testing.assert_array_equal(split.contested.features, [[0, 0, 1, 2]])
    assert split.held_out is None


def test_what_is_standardised_is_so_on_the_training_rows(tmp_path: Path) -> None:
    features = {"x": {"type": "number", "standardise": True, "log": True, "missing": True}}
    table = "client,x,kind,good,part\n" + "\n".join(
        f"{i},{'' if i == 5 else i * 100},a,{i % 2},{'training' if i < 20 else 'held_out'}"
        for i in range(30)
    )
    path = write(tmp_path, table, features=features, unused=["kind"])
    split = OwnData(str(path)).split(0)
    assert split.held_out is not None
    x, flag = split.training.features.T
    known = flag == 0
    assert x[known].mean() == pytest.approx(0, abs=1e-6)
    assert x[known].std() == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(np.flatnonzero(~known), [5])
    assert x[5] == 0
    assert split.held_out.features[:, 0].min() > 0
    values = np.log1p(100.0 * np.delete(np.arange(20), 5))
    expected = (np.log1p(2500.0) - values.mean()) / values.std()
    assert split.held_out.features[5, 0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_example_describes_data_that_are_read(kind: str, tmp_path: Path) -> None:
    path = write_own(tmp_path, kind)
    assert findings(path) == []
    check_dataset(OwnData(str(path)))


def test_the_same_table_as_csv_packed_csv_and_parquet_is_the_same_data(tmp_path: Path) -> None:
    path = write_own(tmp_path, "csv")
    first = OwnData(str(path)).split(3)
    table = pd.read_csv(tmp_path / "clients.csv")
    text = EXAMPLES["csv"].replace("clients.csv ", "{} ")
    for name in ("clients.csv.gz", "clients.parquet"):
        if name.endswith("gz"):
            content = table.to_csv(index=False, sep=";", decimal=",").encode("utf-8-sig")
            (tmp_path / name).write_bytes(gzip.compress(content))
            said = text.replace('separator: ","', 'separator: ";"').replace(
                'decimal: "."', 'decimal: ","'
            )
        else:
            table.sample(frac=1, random_state=1).to_parquet(tmp_path / name)
            said = text
        own = tmp_path / f"{name}.yaml"
        own.write_text(said.format(name))
        assert_same(first, OwnData(str(own)).split(3))


def test_several_files_are_one_below_the_other(tmp_path: Path) -> None:
    head, *rows = GOOD.splitlines()
    path = write(tmp_path, GOOD, file=None, files=["one.csv", "two.csv"])
    (tmp_path / "one.csv").write_text("\n".join([head, *rows[:2]]))
    (tmp_path / "two.csv").write_text("\n".join([head, *rows[2:], "8,77,a,1,training"]))
    assert [str(f) for f in findings(path)] == [
        "x: is out of range; legal is 0 to 10. (two.csv row 3: '77')"
    ]
    (tmp_path / "two.csv").write_text("\n".join([head, *rows[2:]]))
    single = write(tmp_path / "single", GOOD)
    assert_same(OwnData(str(single)).split(0), OwnData(str(path)).split(0))


def test_nothing_is_read_before_the_first_split(tmp_path: Path) -> None:
    dataset = OwnData(str(tmp_path / "data.yaml"), classes=3)  # as the operator builds it
    with pytest.raises(FedpactError, match=r"data\.yaml.* cannot be read \(No such file"):
        dataset.split(0)
    write(tmp_path, GOOD)
    with pytest.raises(FedpactError, match="has 2 classes and the study 3"):
        dataset.split(0)
    assert OwnData(dataset.description).split(0).training.ids.tolist() == [3, 9]


def test_hashes_name_files_and_no_folder(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    hashes = OwnData(str(path)).hashes()
    assert list(hashes) == ["data.yaml", "clients.csv"]
    assert str(tmp_path) not in json.dumps(hashes)
    photos = OwnData(str(write_own(tmp_path / "images", "images", 6))).hashes()
    assert list(photos) == ["data.yaml", "photos"]


def test_outcomes_are_told_when_all_are_known(tmp_path: Path) -> None:
    dataset = OwnData(str(write(tmp_path, GOOD)))
    ids, labels = dataset.outcomes(0, "contested")
    assert (ids.tolist(), labels.tolist()) == ([5], [1])
    with pytest.raises(FedpactError, match="has no common clients"):
        dataset.outcomes(0, "common")
    future = write(tmp_path / "future", GOOD.replace("5,10,,1,", "5,10,,,"))
    assert OwnData(str(future)).split(0).contested is not None
    with pytest.raises(FedpactError, match="1 of 1 contested clients have no label yet"):
        OwnData(str(future)).outcomes(0, "contested")
    past = write(tmp_path / "past", GOOD.replace("9,2,a,1,", "9,2,a,,"))
    assert "good: is missing" in str(findings(past)[0])


def test_a_row_may_count_for_one_seed_only(tmp_path: Path) -> None:
    table = (
        "client,x,kind,good,part,seed\n1,1,a,0,training,0\n1,2,a,0,held_out,1\n"
        "2,3,a,1,held_out,0\n2,4,a,1,training,1\n3,5,b,1,training,\n4,5,b,1,unused,\n"
    )
    path = write(tmp_path, table, parts={"column": "part", "seed": "seed"})
    zero, one = (OwnData(str(path)).split(seed) for seed in (0, 1))
    assert (zero.training.ids.tolist(), one.training.ids.tolist()) == ([1, 3], [2, 3])
    assert zero.held_out is not None
    assert zero.held_out.features[0].tolist() == [1, 0, 0, 0.25]
    path.with_name("clients.csv").write_text(table + "3,5,b,1,held_out,7\n")
    assert "client: is there more than once" in str(findings(path)[0])


# ----------------------------------------------------------------------------- who is in which part


@settings(deadline=None, max_examples=40)
@given(
    st.sets(st.integers(0, 2**63 - 1), min_size=1, max_size=60),
    st.data(),
    st.integers(0, 40),
    st.text(max_size=5),
)
def test_whoever_is_left_out_and_in_whatever_order_the_others_keep_their_part(
    everyone: set[int], data: st.DataObject, seed: int, key: str
) -> None:
    folds = {"training": 3, "validation": 1, "contested": 1, "held_out": 2}
    all_ids = np.array(sorted(everyone))
    some = np.array(data.draw(st.permutations(all_ids.tolist())))[: data.draw(st.integers(1, 60))]

    def part_of(ids: np.ndarray) -> dict[int, str]:
        parts = divide(ids, folds, key, seed)
        found = {int(ids[row]): part for part, rows in parts.items() for row in rows}
        assert sorted(found) == sorted(ids.tolist())
        return found

    whole = part_of(all_ids)
    assert part_of(some) == {client: whole[client] for client in some.tolist()}


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_a_file_with_rows_dropped_and_shuffled_keeps_the_part_of_every_client(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("firm")
    whole = write_own(folder, "csv", 80)
    table = pd.read_csv(folder / "clients.csv")
    kept = data.draw(st.permutations(range(80)))[: data.draw(st.integers(40, 80))]
    other = folder / "other"
    other.mkdir()
    (other / "data.yaml").write_text(EXAMPLES["csv"])
    table.iloc[kept].to_csv(other / "clients.csv", index=False)
    one, two = (OwnData(str(path)).split(2) for path in (whole, other / "data.yaml"))
    for part in ("training", "validation", "contested"):
        held = set(table["client"].iloc[kept].tolist())
        ids = getattr(one, part).ids
        np.testing.assert_array_equal(ids[[i in held for i in ids]], getattr(two, part).ids)


def test_another_key_or_shuffle_divides_otherwise_and_shares_are_kept() -> None:
    ids = np.arange(20_000)
    folds = {"training": 3, "validation": 1, "contested": 1}
    parts = [divide(ids, folds, key, seed) for key, seed in (("", 0), ("", 5), ("x", 0))]
    for found in parts:
        assert len(found["contested"]) == pytest.approx(4000, abs=200)
    both = np.intersect1d(parts[0]["contested"], parts[1]["contested"])
    assert len(both) == pytest.approx(800, abs=100)  # as chance has it
    assert not np.array_equal(parts[0]["contested"], parts[2]["contested"])


def test_a_text_is_known_by_63_bits_of_its_sha256() -> None:
    # sha256("abc") = ba7816bf 8f01cfea ...
    assert id_of("abc") == 0xBA7816BF8F01CFEA >> 1


# ------------------------------------------------------------------------------ everything wrong


def test_everything_wrong_in_a_table_is_told_at_once(tmp_path: Path) -> None:
    table = """client,x,kind,good,part,phone
9,2,a,1,training,1
9,11,c,0,training,2
x,-1,b,2,somewhere,3
5,abc,,1,contested,4
4,,a,,validation,5
,1,a,1,training,6
"""
    path = write(tmp_path, table)
    assert [str(found) for found in findings(path)] == [
        "phone: is a column of clients.csv that the description does not name. Describe it, or "
        "list it under unused (`unused: others` for all the rest).",
        "client: is missing; every row needs an id. (row 6)",
        "client: is no id; legal is a whole number from 0 to 2^63 - 1. (row 3: 'x')",
        "part: is no part; legal are training, validation, contested, held_out, common, unused. "
        "(row 3: 'somewhere')",
        "client: is there more than once; legal is one row a client. Remove the others. "
        "(row 1, row 2)",
        "good: is no level; legal are 0, 1. (row 3: '2')",
        "good: is missing; only rows that a column makes contested or common may wait for theirs. "
        "(row 5)",
        "kind: is no level; legal are a, b. (row 2: 'c')",
        "x: is missing; write `missing: true` if it may be. (row 5)",
        "x: is no finite number. (row 4: 'abc')",
        "x: is out of range; legal is 0 to 10. (row 2: '11', row 3: '-1')",
    ]
    with pytest.raises(FedpactError, match=r"phone: is a column .* 11 things are to be mended"):
        OwnData(str(path)).split(0)


def test_yes_and_no_without_quotes_are_explained(tmp_path: Path) -> None:
    table = GOOD.replace(",1,", ",yes,").replace(",0,training", ",no,training")
    path = write(tmp_path, table, label={"column": "good", "classes": [False, True]})
    assert "put those in quotes" in str(findings(path)[0])


def test_of_many_rows_the_first_five_and_their_number_are_told(tmp_path: Path) -> None:
    table = "client,x,kind,good,part\n" + "".join(f"{i},99,a,1,training\n" for i in range(40))
    (found,) = findings(write(tmp_path, table))
    assert (len(found.rows), found.count) == (5, 40)
    assert str(found).endswith("row 5: '99' and 35 more)")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"file": None}, "legal is one of file, files (tables) and images"),
        ({"file": "clients.xls"}, "ends in .csv, .csv.gz, .parquet"),
        ({"file": "absent.csv"}, "absent.csv: cannot be read (No such file or directory)"),
        ({"fiel": 1}, "fiel: is no key of a description. Did you mean file?"),
        ({"id": None}, "id: is missing"),
        (
            {"file": None, "images": {"folder": "a", "size": [8, 8], "colour": []}},
            "images.colour: is []; legal is grey or rgb",
        ),
        ({"id": {"column": "client", "type": "uuid"}}, "id.type: is 'uuid'; legal is number or te"),
        ({"id": {"column": "who", "type": "text"}}, "who: is described as the id, but client"),
        ({"label": {"column": "good", "classes": [1]}}, "label.classes: is [1]; legal is a list"),
        ({"label": {"column": "good", "classes": [True, "no"]}}, "write yes, no, on and off"),
        ({"features": {"x": {"type": "number"}}}, "features.x: needs a scale, one"),
        ({"features": {"x": {"type": "nmber"}}}, "features.x: has the type 'nmber'"),
        (
            {"features": {"x": {"type": "number", "centre": 1, "standardise": True}}},
            "features.x: needs a scale, one",
        ),
        (
            {"features": {"x": {"type": "number", "centre": 1, "spread": 0}}},
            "features.x.spread: is 0; legal is a number > 0",
        ),
        (
            {"features": {"x": {"type": "number", "low": 3, "high": 1, "centre": 0}}},
            "features.x.low: is 3 and high is 1",
        ),
        (
            {"features": {"good": {"type": "category", "levels": [0, 1]}}},
            "good: is the label and a feature; a column is for one thing",
        ),
        ({"unused": "x"}, "unused: is 'x'; legal is a list of columns, or `others`"),
        ({"parts": {"folds": {"training": 2}}}, "parts.folds: needs training and one more"),
        ({"parts": {"folds": {"training": 2, "test": 1}}}, "parts.folds.test: is no key"),
        ({"parts": {"folds": {"training": 0, "held_out": 1}}}, "training: is 0; legal is a whole"),
        ({"parts": {"column": "part", "folds": {}}}, "in one way which rows are for what"),
        ({"parts": {}}, "in one way which rows are for what"),
        ({"separator": ";;"}, "separator: is ';;'; legal is \",\" or"),
    ],
)
def test_a_mistake_in_a_description_is_told(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    texts = [str(found) for found in findings(write(tmp_path, GOOD, **changes))]
    assert any(told in text for text in texts), texts


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file: [", "is not YAML"),
        ("- a", "holds no keys"),
        ("", "holds no keys"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
        (EXAMPLES["csv"] + "blank: [x]\n", "blank: stands there a second time in line"),
        ("a: &a {b: *a}", "is no key of a description"),
        ("[" * 5000, "is not YAML"),
    ],
)
def test_a_file_that_is_no_description_is_told(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(text)
    assert any(told in str(found) for found in findings(path))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("clients.csv", b"", "but clients.csv has no such column"),
        ("clients.csv", b"client,x,kind,good,part\n", "holds no row"),
        ("clients.csv", GOOD.encode() + b"1,2,3,4,5,6,7\n", "cannot be read"),
        ("clients.csv", b"\xff\xfe\x00", "cannot be read"),
        ("clients.csv", b"client,x,x,kind,good,part\n1,1,1,a,0,training\n", "the same name: x"),
        ("clients.csv", GOOD.encode() + b'6,"\n', "cannot be read"),
        ("clients.csv.gz", b"no gzip", "cannot be read"),
        ("clients.csv.gz", gzip.compress(GOOD.encode(), mtime=0)[:-20], "cannot be read"),
        ("clients.parquet", b"PAR1 no parquet PAR1", "cannot be read"),
    ],
)
def test_a_broken_file_is_told_and_no_traceback(
    name: str, content: bytes, told: str, tmp_path: Path
) -> None:
    path = write(tmp_path, GOOD, file=name)
    (tmp_path / name).write_bytes(content)
    assert any(told in str(found) for found in findings(path)), findings(path)


def bomb(path: Path) -> None:
    """Give a PNG the head of a huge one."""
    content = path.read_bytes()
    path.write_bytes(content[:12] + HEAD + crc32(HEAD).to_bytes(4) + content[33:])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda photos: Image.new("L", (9, 8)).save(photos / "bag" / "0.png"), "is 8x9 pixels"),
        (lambda photos: (photos / "bag" / "0.png").write_bytes(b"GIF89a"), "is no PNG or JPEG"),
        (lambda photos: Image.new("I;16", (8, 8)).save(photos / "bag" / "0.png"), "of kind I;16"),
        (lambda photos: Image.new("L", (8, 8)).save(photos / "bag" / "1.png"), "id of another"),
        (lambda photos: Image.new("L", (8, 8)).save(photos / "bag" / "x.png"), "is no id"),
        (lambda photos: (photos / "hat").mkdir(), "hat: are sub-folders of no class"),
        (lambda photos: (photos / "shoe").rename(photos / "boot"), "shoe: is a class, and no im"),
        (lambda photos: (photos / "bag" / "9.png").mkdir(), "cannot be read (Is a directory)"),
        (lambda photos: bomb(photos / "bag" / "0.png"), "DecompressionBomb"),
        (lambda photos: photos.rename(photos.parent / "pictures"), "no such folder is there"),
    ],
)
def test_a_fault_in_a_folder_of_images_is_told(damage: Any, told: str, tmp_path: Path) -> None:
    path = write_own(tmp_path, "images", 8)
    damage(tmp_path / "photos")
    texts = [str(found) for found in findings(path)]
    assert any(told in text for text in texts), texts


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_whatever_a_description_holds_the_answer_is_findings(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    odd = st.one_of(
        st.none(), st.booleans(), st.integers(-2, 3), st.floats(), st.text(max_size=3),
        st.lists(st.one_of(st.text(max_size=2), st.integers(0, 2)), max_size=3),
        st.dictionaries(st.sampled_from(["column", "type", "folds"]), st.integers(), max_size=2),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("odd")
    if data.draw(st.booleans()):
        path = write(folder, GOOD)
    else:
        path = write_own(folder, data.draw(st.sampled_from(["csv", "images"])), 8)
    said = yaml.safe_load(path.read_text())
    place = said
    while isinstance(place, dict) and place:
        key = data.draw(st.sampled_from(sorted(place)))
        if isinstance(place[key], dict) and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(odd)
        break
    path.write_text(yaml.safe_dump(said))
    dataset, holding = OwnData(str(path)), read(path)
    sound = not holding.findings and not dataset.objections(holding)
    if sound and len(holding.parts(0).get("training", ())):
        assert np.isfinite(dataset.split(0).training.features).all()
    else:
        with pytest.raises(FedpactError):
            dataset.split(0)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: OwnData("clients.csv"), "ends in .yaml"),
        (lambda: OwnData("data.yaml", classes=1), "whole number from 2 to 1000"),
    ],
)
def test_an_impossible_data_set_is_refused(make: Any, told: str) -> None:
    with pytest.raises(FedpactError, match=told):
        make()


# --------------------------------------------------------------------------------- with real data


def write_lender(folder: Path, columns: str, file: str, shuffle: int, count: int = 1500) -> Path:
    """Real card clients as one lender would hold them: its columns, its order."""
    table = read_csv(FILE, SHA256).iloc[:count]
    own = table[[*COLUMNS[columns]]].copy()
    own.insert(0, "client", np.arange(count) + 1000)
    own["pays_back"] = np.where(table["default"] == 1, "no", "yes")
    own = own.sample(frac=1, random_state=shuffle)
    folder.mkdir(parents=True)
    features: dict[str, Any] = {}
    for name in COLUMNS[columns]:
        if name in (*STATUS, "SEX", "EDUCATION", "MARRIAGE"):
            levels = sorted(read_csv(FILE, SHA256)[name].unique().tolist())
            features[name] = {"type": "category", "levels": levels}
        else:
            features[name] = {"type": "number", "standardise": True, "log": name != "AGE"}
    if file.endswith(".parquet"):
        own.to_parquet(folder / file, index=False)
    else:
        own.to_csv(folder / file, index=False)
    said = {
        "file": file,
        "id": {"column": "client", "type": "number"},
        "label": {"column": "pays_back", "classes": ["no", "yes"]},
        "features": features,
        "parts": {"folds": {"training": 3, "validation": 1, "contested": 1}, "key": "loans"},
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(said))
    return folder / "data.yaml"


def loans(tmp_path: Path) -> tuple[str, ...]:
    a = write_lender(tmp_path / "a", "repayment", "clients.csv", 1)
    b = write_lender(tmp_path / "b", "accounts", "clients.parquet", 2)
    return (
        "dataset@parties.lender_a.dataset=own",
        "dataset@parties.lender_b.dataset=own",
        f"parties.lender_a.dataset.description={a}",
        f"parties.lender_b.dataset.description={b}",
        *(word for word in SMALL_LOANS if "clients" not in word),
    )


def test_two_lenders_hold_a_study_on_data_of_their_own(tmp_path: Path) -> None:
    overrides = loans(tmp_path)
    study = study_of(plain(*overrides))
    one, two = (study.firms[name].dataset.split(1) for name in study.names)
    for part in ("training", "validation", "contested"):
        np.testing.assert_array_equal(getattr(one, part).ids, getattr(two, part).ids)
    assert one.training.features.shape[1] != two.training.features.shape[1]
    assert list(study.hashes()) == [
        "lender_a/data.yaml", "lender_a/clients.csv",
        "lender_b/data.yaml", "lender_b/clients.parquet",
    ]  # fmt: skip

    from simulations.engines import apps

    config = run_config(tmp_path / "run", *overrides)
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    folder, aucs = RunFolder(tmp_path / "run"), []
    for case in study.cases():
        kept = folder.load(case.name)
        assert kept is not None
        outcome = kept[0]
        for name in study.names:
            ids, _ = study.nature(case.seed, "contested")
            np.testing.assert_array_equal(outcome.ids[name], ids)
        if case.contract.predictions:
            aucs.append([outcome.scores[f"auc_contested.{n}"] for n in (*study.names, "stacked")])
    first, second, stacked = np.mean(aucs, axis=0)
    assert first > second > 0.62  # repayment tells more than accounts do
    assert stacked > first


def test_firms_of_cases_of_their_own_may_number_them_alike(tmp_path: Path) -> None:
    names = ("alpha", "beta")
    for name in names:
        path = write_own(tmp_path / name)
        text = EXAMPLES["csv"].replace("    validation: 1 ", "    held_out: 1 ")
        path.write_text("\n".join(line for line in text.splitlines() if "contested:" not in line))
    study = study_of(
        plain(
            *SMALL_POOL,
            "parties=two_own",
            *(f"parties.{n}.dataset.description={tmp_path / n}/data.yaml" for n in names),
        )
    )
    one, two = (study.firms[name].dataset.split(0).training.ids for name in study.names)
    np.testing.assert_array_equal(one, two)
    assert set(study.declarations()) == set(names)


def test_own_data_of_the_shipped_clients_teach_the_same_model(tmp_path: Path) -> None:
    own = OwnData(str(write_lender(tmp_path / "a", "accounts", "clients.csv", 3, 30_000)))
    shipped = TaiwanCredit("accounts").split(0)
    split = own.split(0)
    assert len(split.training.ids) == pytest.approx(len(shipped.training.ids), rel=0.02)
    aucs = []
    for dataset, found in ((own, split), (TaiwanCredit("accounts"), shipped)):
        model = LogisticRegression(C=0.1, max_iter=300)
        model.fit(found.training.features, found.training.labels)
        assert found.contested is not None
        ids, truth = dataset.outcomes(0, "contested")
        np.testing.assert_array_equal(ids, found.contested.ids)
        aucs.append(roc_auc_score(truth, model.predict_proba(found.contested.features)[:, 1]))
    assert aucs[0] == pytest.approx(aucs[1], abs=0.02)
    assert aucs[0] > 0.7


def test_a_folder_of_digits_is_the_digits(tmp_path: Path) -> None:
    pixels, labels = load_digits(return_X_y=True)
    for i in range(400):
        file = tmp_path / "digits" / str(labels[i]) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels[i] * 15).reshape(8, 8).astype(np.uint8)).save(file)
    said = {
        "images": {"folder": "digits", "size": [8, 8]},
        "id": {"type": "number"},
        "label": {"classes": [str(d) for d in range(10)]},
        "parts": {"folds": {"training": 3, "held_out": 1}},
    }
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(said))
    dataset = OwnData(str(tmp_path / "data.yaml"), classes=10)
    check_dataset(dataset)
    split = dataset.split(0)
    assert split.held_out is not None
    for part in (split.training, split.held_out):
        np.testing.assert_array_equal(part.labels, labels[part.ids])
        np.testing.assert_allclose(part.features, pixels[part.ids] * 15 / 255, atol=1e-6)


def test_colours_are_three_numbers_a_pixel(tmp_path: Path) -> None:
    path = write_own(tmp_path, "images", 8)
    path.write_text(EXAMPLES["images"].replace("colour: grey", "colour: rgb"))
    Image.new("RGB", (8, 8), (255, 0, 51)).save(tmp_path / "photos" / "bag" / "100.png")
    split = OwnData(str(path)).split(0)
    parts = [part for part in (split.training, split.held_out) if part is not None]
    (found,) = [p.features[p.ids == 100][0] for p in parts if 100 in p.ids]
    np.testing.assert_allclose(found.reshape(8, 8, 3)[3, 4], [1, 0, 0.2])


def assert_same(one: Split, two: Split) -> None:
    for part in PARTS:
        a, b = getattr(one, part), getattr(two, part)
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(a.ids, b.ids)
            np.testing.assert_array_equal(a.features, b.features)
    np.testing.assert_array_equal(one.training.labels, two.training.labels)
