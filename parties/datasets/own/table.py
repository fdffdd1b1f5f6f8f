"""Tables (csv, parquet) into numbers, by their description; every violation with its rows."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from parties.datasets.own.description import (
    MOST_SHOWN,
    PARTS,
    Category,
    Description,
    Finding,
    Number,
)
from parties.datasets.own.holding import UNKNOWN, Features, Holding
from parties.datasets.own.parts import id_of
from parties.exchange import Array

LARGEST = 2**63 - 1
INDEX = re.compile(r"__index_level_\d+__")  # pandas' row numbers, which nobody asked for
USES = {"feature": "a feature", "id": "the id", "label": "the label", "parts": "a column of parts"}
UNLABELLED = ("contested", "common", "unused")  # clients of the future have no label yet


def read_tables(said: Description, findings: list[Finding]) -> Holding:
    """What the tables hold; what is wrong is added to the findings."""
    return _Tables(said, findings).holding()


@final
class _Tables:
    """Reads the columns of all files, one below the other."""

    def __init__(self, said: Description, findings: list[Finding]) -> None:
        self.said, self.findings = said, findings
        self.hashes: dict[str, str] = {}
        self.missing: dict[str, int] = {}
        self.columns: tuple[str, ...] = ()
        self.counts: list[int] = []
        tables = [self._file(name) for name in said.files]
        whole = all(table is not None for table in tables)
        self.table = pd.concat(tables, ignore_index=True) if whole else pd.DataFrame()

    def holding(self) -> Holding:
        said, rows = self.said, len(self.table)
        if not rows:
            if not self.findings:
                self.findings.append(Finding(said.files[0], "holds no row; legal is one or more."))
            return Holding(said, (), self.hashes, columns=self.columns)
        ids, seeds, fixed = self._ids(), self._seeds(), self._fixed()
        if ids is not None:
            self._repeated(ids, seeds)
        labels = self._labels(fixed)
        values, standardised = self._features()
        order = np.arange(rows)
        if ids is not None:
            order = np.lexsort((order if seeds is None else seeds, ids))
        ids, labels, fixed, seeds = (
            None if part is None else part[order] for part in (ids, labels, fixed, seeds)
        )
        return Holding(
            said,
            (),
            self.hashes,
            rows,
            self.columns,
            self.missing,
            ids,
            labels,
            Features(values[order], standardised),
            fixed,
            seeds,
        )

    # ------------------------------------------------------------------------------ the files

    def _file(self, name: str) -> pd.DataFrame | None:
        """The described columns of one file; None where it cannot be read."""
        short = Path(name).name
        short = short if short not in self.hashes else f"{short} ({len(self.hashes) + 1})"
        try:
            content = (self.said.folder / name).read_bytes()
            self.hashes[short] = hashlib.sha256(content).hexdigest()
            read = _parquet if name.endswith(".parquet") else _csv
            content = gzip.decompress(content) if name.endswith(".gz") else content
            columns, table = read(self.said, content)
        except (OSError, EOFError, zlib.error, ValueError, pa.ArrowException, csv.Error) as fault:
            why = getattr(fault, "strerror", None) or " ".join(str(fault).split())
            self._add(short, f"cannot be read ({why}); legal is a table with one line of names.")
            return None
        twice = sorted({c for c in columns if columns.count(c) > 1})
        if twice:
            self._add(short, f"has columns of the same name: {', '.join(twice)}. Rename one.")
            return None
        self._compare(short, tuple(columns))
        self.counts.append(len(table))
        return table.reindex(columns=list(self.said.named))

    def _compare(self, short: str, columns: tuple[str, ...]) -> None:
        """Columns that are missing, and those of which nothing is said."""
        self.columns = tuple(dict.fromkeys((*self.columns, *columns)))
        for column, use in self.said.named.items():
            if column not in columns:
                self._add(
                    column,
                    f"is described as {USES[use]}, but {short} has no such column. Correct the "
                    "name, or the file.",
                )
        unused = self.said.unused
        rest = [c for c in columns if c not in self.said.named and c not in (unused or ())]
        if rest and unused is not None:
            are, them = ("is a column", "it") if len(rest) == 1 else ("are columns", "them")
            self._add(
                ", ".join(rest),
                f"{are} of {short} that the description does not name. Describe {them}, or list "
                f"{them} under unused (`unused: others` for all the rest).",
            )

    # ---------------------------------------------------------------------------- the columns

    def _ids(self) -> Array | None:
        said = self.said.identity
        if said is None or said.column not in self.columns:
            return None
        column, cells = said.column, self.table[said.column]
        texts, blank = self._texts(cells)
        self._refuse(column, blank, "is missing; every row needs an id")
        if said.kind == "number":
            found = [whole(cell) for cell in texts]
            bad = np.array([v is None for v in found]) & ~blank
            self._refuse(column, bad, "is no id; legal is a whole number from 0 to 2^63 - 1", texts)
            return np.array([UNKNOWN if v is None else v for v in found], np.int64)
        names: dict[int, str] = {}
        collide = np.zeros(len(texts), bool)
        ids = np.full(len(texts), UNKNOWN, np.int64)
        for row in np.flatnonzero(~blank):
            text = str(texts[row])
            ids[row] = id_of(text)
            collide[row] = names.setdefault(int(ids[row]), text) != text
        self._refuse(column, collide, "has the same 63 bits of sha256 as another id; rename it")
        return ids

    def _seeds(self) -> Array | None:
        column = None if self.said.parts is None else self.said.parts.seed
        if column is None or column not in self.columns:
            return None
        texts, blank = self._texts(self.table[column])
        found = [None if row else whole(text) for text, row in zip(texts, blank, strict=True)]
        bad = np.array([v is None or v < 0 for v in found]) & ~blank
        self._refuse(column, bad, "is no seed; legal is a whole number >= 0, or blank", texts)
        return np.array([UNKNOWN if v is None else v for v in found], np.int64)

    def _fixed(self) -> Array | None:
        column = None if self.said.parts is None else self.said.parts.column
        if column is None or column not in self.columns:
            return None
        texts, blank = self._texts(self.table[column])
        found = np.array(
            ["unused" if row else text for text, row in zip(texts, blank, strict=True)]
        )
        legal = (*PARTS, "unused")
        bad = blank | ~np.isin(found, legal)
        self._refuse(column, bad, f"is no part; legal are {', '.join(legal)}", texts)
        return found

    def _repeated(self, ids: Array, seeds: Array | None) -> None:
        """A client has one row; or one a seed, where a column says for which seed a row counts."""
        own = pd.DataFrame({"id": ids, "seed": UNKNOWN if seeds is None else seeds})
        twice = own.duplicated(keep=False) & (own["id"] != UNKNOWN)
        always = own["seed"] == UNKNOWN
        both = own["id"].isin(own["id"][always]) & own["id"].isin(own["id"][~always])
        what = "is there more than once; legal is one row a client"
        if seeds is not None:
            what += " and seed, or one for all seeds"
        assert self.said.identity is not None
        bad = (twice | both).to_numpy(dtype=bool)
        self._refuse(str(self.said.identity.column), bad, f"{what}. Remove the others")

    def _labels(self, fixed: Array | None) -> Array | None:
        said = self.said.label
        if said is None or said.column not in self.columns:
            return None
        texts, blank = self._texts(self.table[said.column])
        labels = self._levels(said.column, said.classes, texts, blank)
        may = np.zeros(len(texts), bool) if fixed is None else np.isin(fixed, UNLABELLED)
        self._refuse(
            said.column,
            blank & ~may,
            "is missing; only rows that a column makes contested or common may wait for theirs",
        )
        return labels

    def _levels(self, column: str, levels: Sequence[Any], texts: Array, blank: Array) -> Array:
        """The place (n,) of each cell among the levels; -1 where it is missing or none of them."""
        read = _reader_of(levels)
        places = {level: place for place, level in enumerate(levels)}
        found = [UNKNOWN if row else places.get(read(text), UNKNOWN) for text, row in
                 zip(texts, blank, strict=True)]  # fmt: skip
        places_found = np.array(found, np.int64)
        legal = ", ".join(map(str, levels))
        if isinstance(levels[0], bool):
            legal = "true, false (YAML takes yes, no, on and off for them; put those in quotes)"
        self._refuse(
            column, (places_found == UNKNOWN) & ~blank, f"is no level; legal are {legal}", texts
        )
        return places_found

    def _features(self) -> tuple[Array, Array]:
        blocks, standardised = [np.zeros((len(self.table), 0))], list[bool]()
        for feature in self.said.features:
            if feature.name not in self.columns:
                continue
            texts, blank = self._texts(self.table[feature.name])
            if not feature.missing:
                self._refuse(feature.name, blank, "is missing; write `missing: true` if it may be")
            if isinstance(feature, Category):
                places = self._levels(feature.name, feature.levels, texts, blank)
                blocks.append((places[:, None] == np.arange(len(feature.levels))).astype(float))
                standardised += [False] * len(feature.levels)
            else:
                blocks.append(self._numbers(feature, texts, blank)[:, None])
                standardised.append(feature.standardise)
            if feature.missing:
                blocks.append(blank[:, None].astype(float))
                standardised.append(False)
        return np.concatenate(blocks, 1), np.array(standardised, bool)

    def _numbers(self, feature: Number, texts: Array, blank: Array) -> Array:
        if self.said.decimal != ".":
            texts = np.array([t.replace(self.said.decimal, ".") for t in texts], object)
        found = np.array(
            [np.nan if row else _float(text) for text, row in zip(texts, blank, strict=True)]
        )
        bad = ~np.isfinite(found) & ~blank
        self._refuse(feature.name, bad, "is no finite number", texts)
        found[bad] = np.nan
        low = -np.inf if feature.low is None else feature.low
        high = np.inf if feature.high is None else feature.high
        outside = (found < low) | (found > high)
        self._refuse(feature.name, outside, f"is out of range; legal is {low:g} to {high:g}", texts)
        if feature.log:
            found = np.sign(found) * np.log1p(np.abs(found))
        return found if feature.standardise else (found - feature.centre) / feature.spread

    # ------------------------------------------------------------------------------- findings

    def _texts(self, cells: pd.Series[Any]) -> tuple[Array, Array]:
        """Cells (n,) as texts without blanks at their ends, and which are missing."""
        texts = np.array([_text(cell) for cell in cells.to_numpy(object)], object)
        blank = np.isin(texts, ["", *self.said.blank])
        name = str(cells.name)
        if blank.any():
            self.missing[name] = int(blank.sum())
        return texts, blank

    def _add(self, where: str, problem: str) -> None:
        self.findings.append(Finding(where, problem))

    def _refuse(
        self, column: str | None, bad: Array, problem: str, texts: Array | None = None
    ) -> None:
        """Notes the rows in which a column is not as it has to be."""
        rows = np.flatnonzero(bad)
        if len(rows) == 0:
            return
        named = [self._row(int(row)) for row in rows[:MOST_SHOWN]]
        if texts is not None:
            named = [f"{n}: {str(texts[row])[:40]!r}" for n, row in zip(named, rows, strict=False)]
        self.findings.append(Finding(str(column), f"{problem}.", tuple(named), len(rows)))

    def _row(self, row: int) -> str:
        """Row 1 is the first below the names."""
        for name, count in zip(self.said.files, self.counts, strict=True):
            if row < count:
                return f"row {row + 1}" if len(self.counts) == 1 else f"{name} row {row + 1}"
            row -= count
        raise AssertionError(f"no file has row {row}")


def _csv(said: Description, content: bytes) -> tuple[list[str], pd.DataFrame]:
    """All cells as texts, so that nothing is guessed."""
    text = content.decode("utf-8-sig")
    first = next(csv.reader(io.StringIO(text), delimiter=said.separator), [])
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # lines that are too long
        try:
            table = pd.read_csv(
                io.StringIO(text),
                sep=said.separator,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                names=list(range(len(first))),
                header=0,
            )
        except pd.errors.ParserWarning as fault:
            raise ValueError("a line has more cells than there are names") from fault
        except pd.errors.EmptyDataError:
            table = pd.DataFrame(columns=list(range(len(first))))
    table.columns = pd.Index([name.strip() for name in first])
    return [name.strip() for name in first], table


def _parquet(said: Description, content: bytes) -> tuple[list[str], pd.DataFrame]:
    """A parquet file; whole numbers stay whole where some are missing."""
    file = pq.ParquetFile(pa.BufferReader(content))
    names = [name for name in file.schema_arrow.names if not INDEX.fullmatch(name)]
    wanted = [name for name in dict.fromkeys(names) if name in said.named]
    table = file.read(columns=wanted).to_pandas(ignore_metadata=True, integer_object_nulls=True)
    return names, table.reindex(range(file.metadata.num_rows))


def _text(cell: Any) -> str:
    """A cell as a text: the same from csv and from parquet."""
    if isinstance(cell, str):
        return cell.strip()
    if isinstance(cell, bool | np.bool_):
        return "true" if cell else "false"
    if cell is None or cell is pd.NaT or cell is pd.NA:
        return ""
    if isinstance(cell, float | np.floating):
        if np.isnan(cell):
            return ""
        return str(int(cell)) if float(cell).is_integer() else repr(float(cell))
    return str(cell).strip()


def whole(text: str) -> int | None:
    """A whole number from 0 to 2^63 - 1; `7.0` is one: pandas writes so what has blanks beside."""
    if text.isdecimal() and len(text) < 20:
        found = int(text)
        return found if found <= LARGEST else None
    number = _float(text)
    return int(number) if number.is_integer() and 0 <= number <= 2**53 else None


def _float(text: str) -> float:
    try:
        return float("nan") if "_" in text else float(text)  # Python would take 1_000
    except ValueError:
        return float("nan")


def _reader_of(levels: Sequence[Any]) -> Callable[[str], Any]:
    """How a cell is read where the levels are numbers, true and false, or texts."""
    if isinstance(levels[0], bool):
        return lambda text: {"true": True, "false": False}.get(text.lower())
    if isinstance(levels[0], int | float):
        return _float
    return lambda text: text
