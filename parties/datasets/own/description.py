"""A firm's description of its own data: what the file may say, and all that is wrong with it.

Examples, a description a kind of data, are in `parties.datasets.own.examples`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

import yaml

PARTS = ("training", "validation", "contested", "held_out", "common")
TABLES = (".csv", ".csv.gz", ".parquet")
KINDS = ("number", "text")
COLOURS = {"grey": 1, "rgb": 3}
MOST_SHOWN = 5


@final
@dataclass(frozen=True)
class Finding:
    """Something wrong with a firm's data.

    Args:
        where: the key of the description, the column or the file.
        problem: what is wrong, what is legal, what to do.
        rows: the first rows in which it is so, at most five.
        count: in how many rows it is so; 0 where it is not about rows.
    """

    where: str
    problem: str
    rows: tuple[str, ...] = ()
    count: int = 0

    def __str__(self) -> str:
        more = f" and {self.count - len(self.rows)} more" if self.count > len(self.rows) else ""
        return f"{self.where}: {self.problem}" + (
            f" ({', '.join(self.rows)}{more})" * bool(more or self.rows)
        )


@final
@dataclass(frozen=True)
class Number:
    """A column of numbers.

    Args:
        low, high: the legal range; None: open.
        centre, spread: it becomes (value - centre) / spread, the same in every firm and seed.
        standardise: centre and spread are those of the training rows instead.
        log: it becomes sign(value) * log(1 + |value|) before that.
        missing: it may be missing: it is 0 then, and a feature of its own says so.
    """

    name: str
    low: float | None = None
    high: float | None = None
    centre: float = 0.0
    spread: float = 1.0
    standardise: bool = False
    log: bool = False
    missing: bool = False


@final
@dataclass(frozen=True)
class Category:
    """A column of levels: a feature of 0 and 1 for each, and one for missing where it may be."""

    name: str
    levels: tuple[Any, ...]  # in their order
    missing: bool = False


Feature = Number | Category


@final
@dataclass(frozen=True)
class Identity:
    """The clients' ids; a text becomes the first 63 bits of its sha256."""

    column: str | None
    kind: str


@final
@dataclass(frozen=True)
class Label:
    """The label column (None: sub-folders of images) and its values, class 0 first."""

    column: str | None
    classes: tuple[Any, ...]


@final
@dataclass(frozen=True)
class Division:
    """Which rows are for what: a column that says it, or folds by a keyed hash of the id.

    Args:
        column: holds one of `PARTS`, or "unused".
        seed: the column that holds the seed for which the row counts; blank: for all.
        folds: part -> how many of all folds.
        key: what firms who hold the same clients agree on; another key, another division.
    """

    column: str | None = None
    seed: str | None = None
    folds: Mapping[str, int] = field(default_factory=dict)
    key: str = ""


@final
@dataclass(frozen=True)
class Images:
    """A folder of images, a sub-folder a class: height and width in pixels, "grey" or "rgb"."""

    folder: str
    size: tuple[int, int]
    colour: str


@final
@dataclass(frozen=True)
class Description:
    """What a firm says of its data. What could not be read is None, and a finding says why.

    Args:
        name: the file's name; sha256: of its content.
        folder: where it lies; files are looked for from there.
        files: tables, one below the other.
        separator, decimal: of csv files.
        blank: texts that stand for a missing value.
        features: in the order of their names.
        unused: columns that are not used; None: all that are not described.
    """

    name: str
    sha256: str
    folder: Path
    files: tuple[str, ...]
    images: Images | None
    separator: str
    decimal: str
    blank: tuple[str, ...]
    identity: Identity | None
    label: Label | None
    features: tuple[Feature, ...]
    unused: tuple[str, ...] | None
    parts: Division | None

    @property
    def inputs(self) -> str:
        """sha256 of what a model's inputs mean: the same where two firms describe the same."""
        scales = [{"kind": type(f).__name__, **asdict(f)} for f in self.features]
        said = {
            "features": [{k: v for k, v in s.items() if k not in ("low", "high")} for s in scales],
            "images": None if self.images is None else [*self.images.size, self.images.colour],
            "classes": None if self.label is None else self.label.classes,
        }
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    @property
    def named(self) -> dict[str, str]:
        """Column -> what it is for."""
        found = {f.name: "feature" for f in self.features}
        if self.identity is not None and self.identity.column is not None:
            found[self.identity.column] = "id"
        if self.label is not None and self.label.column is not None:
            found[self.label.column] = "label"
        if self.parts is not None:
            found |= {c: "parts" for c in (self.parts.column, self.parts.seed) if c is not None}
        return found


def describe(path: Path) -> tuple[Description | None, list[Finding]]:
    """Read a description: what it says, and everything that is wrong with it."""
    reader = _Reader()
    raw, content = _load(path, reader)
    if not isinstance(raw, dict):
        return None, reader.findings
    return reader.description(path, hashlib.sha256(content).hexdigest(), raw), reader.findings


def _load(path: Path, reader: _Reader) -> tuple[Any, bytes]:
    """The file's content as plain values; None where it is not YAML of names and values."""
    try:
        content = path.read_bytes()
        text = content.decode()
        repeated = _repeated(yaml.compose(text, Loader=yaml.SafeLoader), set())
        raw = yaml.safe_load(text)
    except OSError as fault:
        reader.add(
            path.name,
            f"cannot be read ({fault.strerror}); legal is a file that describes your data. "
            "`python -m simulations.deploy check --example` prints one to begin with.",
        )
        return None, b""
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        reader.add(path.name, f"is not YAML in UTF-8: {' '.join(str(fault).split())}. Mend it.")
        return None, b""
    for key, line in repeated:
        reader.add(key, f"stands there a second time in line {line}. Remove one of the two.")
    if not isinstance(raw, dict):
        reader.add(path.name, "holds no keys; legal is `file: ...`, `id: ...` and so on.")
    return raw, content


def _repeated(node: Any, seen: set[int]) -> list[tuple[str, int]]:
    """Keys that a mapping has twice (YAML would silently take the last), and their lines."""
    if node is None or id(node) in seen or isinstance(node, yaml.ScalarNode):
        return []
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        return [found for below in node.value for found in _repeated(below, seen)]
    keys: set[str] = set()
    twice = []
    for key, below in node.value:
        if str(key.value) in keys:
            twice.append((str(key.value), key.start_mark.line + 1))
        keys.add(str(key.value))
        twice += _repeated(below, seen)
    return twice


def _number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _levels(value: Any) -> bool:
    """Two or more different ones: all texts, all finite numbers, or true and false."""
    if not isinstance(value, list) or len(value) < 2:
        return False
    alike = [all(map(kind, value)) for kind in (_flag, _number, lambda v: isinstance(v, str))]
    return any(alike) and len(set(value)) == len(value)


LEVELS = (
    "a list of two or more different values, all numbers or all texts; write yes, no, on and off "
    "in quotes, for YAML takes them for true and false"
)
REQUIRED = object()


@final
class _Reader:
    """Takes a description apart, and notes everything that is wrong."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def add(self, where: str, problem: str) -> None:
        self.findings.append(Finding(where, problem))

    def keys(self, raw: Any, where: str, legal: tuple[str, ...]) -> dict[str, Any]:
        """The mapping, without keys that mean nothing."""
        if not isinstance(raw, dict):
            self.add(where, f"is {raw!r}; legal are keys and values: {', '.join(legal)}.")
            return {}
        for key in raw:
            if key not in legal:
                close = difflib.get_close_matches(str(key), legal, n=1, cutoff=0.5)
                hint = f"Did you mean {close[0]}?" if close else f"Legal are {', '.join(legal)}."
                self.add(f"{where}.{key}".lstrip("."), f"is no key of a description. {hint}")
        return {k: v for k, v in raw.items() if k in legal}

    def take(
        self,
        raw: Mapping[str, Any],
        key: str,
        where: str,
        legal: Callable[[Any], bool],
        rule: str,
        default: Any = REQUIRED,
    ) -> Any:
        """The value of a key; its default (or None) where it is absent or not legal."""
        name = f"{where}.{key}".lstrip(".")
        if raw.get(key) is None:
            if default is REQUIRED and raw is not _NOTHING:
                self.add(name, f"is missing; legal is {rule}.")
            return None if default is REQUIRED else default
        if not legal(raw[key]):
            self.add(name, f"is {raw[key]!r}; legal is {rule}.")
            return None if default is REQUIRED else default
        return raw[key]

    def description(self, path: Path, sha256: str, raw: Any) -> Description | None:
        raw = self.keys(raw, "", _TOP)
        files, images = self._sources(raw)
        if not files and images is None:
            return None
        features, dropped = self._features(raw.get("features"), images is not None)
        unused = raw.get("unused", [])
        if unused != "others" and not _texts(unused):
            self.add("unused", f"is {unused!r}; legal is a list of columns, or `others` for all.")
            unused = "others"
        found = Description(
            name=path.name,
            sha256=sha256,
            folder=path.parent,
            files=files,
            images=images,
            separator=self.take(raw, "separator", "", _one_of(",;|:\t "), _SEPARATORS, ","),
            decimal=self.take(raw, "decimal", "", _one_of(".,"), '"." or ","', "."),
            blank=tuple(self.take(raw, "blank", "", _texts, "a list of texts", [""])),
            identity=self._identity(raw, images is not None),
            label=self._label(raw, images is not None),
            features=features,
            unused=None if unused == "others" else (*unused, *dropped),
            parts=self._parts(raw, images is not None),
        )
        self._check_once(found)
        return found

    def _sources(self, raw: dict[str, Any]) -> tuple[tuple[str, ...], Images | None]:
        given = [key for key in ("file", "files", "images") if raw.get(key) is not None]
        if len(given) != 1:
            self.add(
                "file",
                f"and its like are there {len(given)} times; legal is one of file, files (tables) "
                "and images (a folder). Write for example `file: clients.csv`.",
            )
            return (), None
        rule = f"the name of a table that ends in {', '.join(TABLES)}"
        match given[0]:
            case "file":
                name = self.take(raw, "file", "", _table, rule)
                return (() if name is None else (name,)), None
            case "files":
                names = self.take(raw, "files", "", _tables, f"a list; each is {rule}")
                return tuple(names or ()), None
        own = self.keys(raw["images"], "images", ("folder", "size", "colour"))
        folder = self.take(own, "folder", "images", _text, "the name of a folder")
        size = self.take(own, "size", "images", _size, "[height, width] in pixels")
        colour = self.take(own, "colour", "images", _colour, "grey or rgb", "grey")
        return (), None if folder is None or size is None else Images(folder, tuple(size), colour)

    def _identity(self, raw: dict[str, Any], images: bool) -> Identity | None:
        own = self._part(raw, "id", ("type",) if images else ("column", "type"))
        column = None if images else self.take(own, "column", "id", _text, "a column's name")
        kind = self.take(own, "type", "id", KINDS.__contains__, "number or text")
        return None if kind is None or (column is None and not images) else Identity(column, kind)

    def _label(self, raw: dict[str, Any], images: bool) -> Label | None:
        own = self._part(raw, "label", ("classes",) if images else ("column", "classes"))
        column = None if images else self.take(own, "column", "label", _text, "a column's name")
        classes = self.take(own, "classes", "label", _levels, f"{LEVELS}; the first is class 0")
        if images and classes is not None and not _folders(classes):
            self.add("label.classes", f"is {classes!r}; legal are names of sub-folders, in quotes.")
            return None
        bad = classes is None or (column is None and not images)
        return None if bad else Label(column, tuple(classes))

    def _part(self, raw: dict[str, Any], key: str, legal: tuple[str, ...]) -> Mapping[str, Any]:
        if raw.get(key) is None:
            self.add(key, f"is missing; legal are its keys {', '.join(legal)}. Write them.")
            return _NOTHING
        return self.keys(raw[key], key, legal)

    def _features(self, raw: Any, images: bool) -> tuple[tuple[Feature, ...], list[str]]:
        """The features that are described soundly, and the columns of the others."""
        if images:
            if raw is not None:
                self.add("features", "are there; those of images are their pixels. Remove them.")
            return (), []
        if not isinstance(raw, dict) or not raw:
            self.add("features", "are missing; legal is a type for each column that is used.")
            return (), []
        found: list[Feature] = []
        dropped = []
        for name, said in raw.items():
            before = len(self.findings)
            feature = self._feature(str(name), said)
            if feature is not None and len(self.findings) == before:
                found.append(feature)
            else:
                dropped.append(str(name))
        # Firms who average their models need the same inputs in the same order, however written.
        return tuple(sorted(found, key=lambda feature: feature.name)), dropped

    def _feature(self, name: str, said: Any) -> Feature | None:
        where = f"features.{name}"
        kind = said.get("type") if isinstance(said, dict) else None
        if kind == "category":
            own = self.keys(said, where, ("type", "levels", "missing"))
            levels = self.take(own, "levels", where, _levels, LEVELS)
            missing = self.take(own, "missing", where, _flag, "true or false", False)
            return None if levels is None else Category(name, tuple(sorted(levels)), missing)
        if kind != "number":
            self.add(where, f"has the type {kind!r}; legal is `type: number` or `type: category`.")
            return None
        limits = ("low", "high", "centre", "spread")
        flags = ("standardise", "log", "missing")
        own = self.keys(said, where, ("type", *limits, *flags))
        low, high, centre, spread = (
            self.take(own, key, where, _number, "a finite number", None) for key in limits
        )
        standardise, log, missing = (
            self.take(own, key, where, _flag, "true or false", False) for key in flags
        )
        if standardise == (centre is not None or spread is not None):
            self.add(
                where,
                "needs a scale, one; legal is `standardise: true` (on the training rows), or "
                "centre and spread (of log(1 + |value|) with `log: true`). Write one of them.",
            )
        if spread is not None and spread <= 0:
            self.add(f"{where}.spread", f"is {spread}; legal is a number > 0.")
        if low is not None and high is not None and low >= high:
            self.add(f"{where}.low", f"is {low} and high is {high}; legal is low < high.")
        scale = (0.0 if centre is None else float(centre), 1.0 if spread is None else float(spread))
        return Number(name, low, high, *scale, standardise, log, missing)

    def _parts(self, raw: dict[str, Any], images: bool) -> Division | None:
        own = self._part(raw, "parts", ("folds", "key", "column", "seed"))
        if own is _NOTHING:
            return None
        column = self.take(own, "column", "parts", _text, "a column's name", None)
        seed = self.take(own, "seed", "parts", _text, "a column's name", None)
        key = self.take(own, "key", "parts", lambda v: isinstance(v, str), "a text", "")
        if (column is None) == (own.get("folds") is None) or (images and column is not None):
            self.add(
                "parts",
                "has to say in one way which rows are for what; legal is `folds:` (part: number of "
                "folds), or for a table `column:` that holds the part of each row.",
            )
            return None
        if column is not None:
            return Division(column, seed)
        if seed is not None:
            self.add("parts.seed", "is there with folds; they have their seed. Remove it.")
        folds = self.keys(own["folds"], "parts.folds", PARTS)
        for part, count in folds.items():
            if not _whole(count, 1):
                self.add(f"parts.folds.{part}", f"is {count!r}; legal is a whole number >= 1.")
                return None
        if "training" not in folds or len(folds) < 2:
            self.add("parts.folds", "needs training and one more of " + ", ".join(PARTS[1:]) + ".")
            return None
        return Division(folds=folds, key=key)

    def _check_once(self, found: Description) -> None:
        """A column is for one thing."""
        parts = found.parts or Division()
        uses = [
            (c, what)
            for c, what in (
                (found.identity.column if found.identity else None, "the id"),
                (found.label.column if found.label else None, "the label"),
                (parts.column, "the part"),
                (parts.seed, "the seed"),
                *((f.name, "a feature") for f in found.features),
                *((c, "unused") for c in found.unused or ()),
            )
            if c is not None
        ]
        seen: dict[str, str] = {}
        for column, what in uses:
            if column in seen:
                self.add(column, f"is {seen[column]} and {what}; a column is for one thing.")
            seen.setdefault(column, what)


_TOP = (
    "file", "files", "images", "separator", "decimal", "blank", "id", "label", "features",
    "unused", "parts",
)  # fmt: skip
_NOTHING: Mapping[str, Any] = {}


_SEPARATORS = '"," or ";", "|", ":", a space, or a tab ("\\t")'


def _one_of(letters: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and len(value) == 1 and value in letters


def _folders(value: Any) -> bool:
    """Names of sub-folders, and no paths."""
    return _texts(value) and all(Path(v).name == v and "\0" not in v for v in value)


def _colour(value: Any) -> bool:
    return isinstance(value, str) and value in COLOURS


def _table(value: Any) -> bool:
    return _text(value) and value.endswith(TABLES)


def _tables(value: Any) -> bool:
    return (
        _texts(value) and bool(value) and all(map(_table, value)) and len(set(value)) == len(value)
    )


def _size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_whole(v, 1) for v in value)
