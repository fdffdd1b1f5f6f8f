"""920 cardiac patients of four hospitals (UCI 45): natural institutions, same columns each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import final

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from parties.datasets import Dataset, Examples, Split, read_csv
from parties.datasets.kept import SPLITS
from parties.exchange import Array, FedpactError

FILE = "heart_hospitals.csv.gz"
SHA256 = "a3f681426e92447fdaa8afb9261e1aa5de7cff03deaf375e0cf115550f085537"

HOSPITALS = ("Cleveland", "Hungary", "Switzerland", "VA Long Beach")
# Typical adult (centre, spread). Fixed in advance, so that no hospital's numbers leak into
# another's scaling and one model fits all four.
NUMBERS = {
    "age": (55.0, 10.0),
    "trestbps": (130.0, 20.0),
    "chol": (240.0, 50.0),
    "thalch": (140.0, 25.0),
    "oldpeak": (1.0, 1.0),
    "ca": (1.0, 1.0),
}
CATEGORIES = {
    "sex": ("Male",),
    "cp": ("asymptomatic", "atypical angina", "non-anginal", "typical angina"),
    "fbs": ("TRUE",),
    "restecg": ("lv hypertrophy", "st-t abnormality"),
    "exang": ("TRUE",),
    "slope": ("downsloping", "flat", "upsloping"),
    "thal": ("fixed defect", "normal", "reversable defect"),
}


@final
@dataclass(frozen=True)
class HeartHospital(Dataset):
    """One hospital's patients. Class 1 is heart disease (`num` > 0).

    Seed s holds out fold s mod `folds` of shuffle s // `folds` (stratified by class), so `folds`
    consecutive seeds hold out every patient exactly once.

    Args:
        hospital: "Cleveland", "Hungary", "Switzerland" or "VA Long Beach".
        folds: one part in `folds` of the patients is kept for testing.
    """

    hospital: str
    folds: int = 4

    def __post_init__(self) -> None:
        if self.hospital not in HOSPITALS:
            raise FedpactError(
                f"dataset.hospital is {self.hospital!r}; legal are {', '.join(HOSPITALS)}."
            )
        whole = isinstance(self.folds, int) and not isinstance(self.folds, bool)
        # Switzerland has 8 healthy patients: with more folds some would hold none.
        if not whole or not 2 <= self.folds <= 8:
            raise FedpactError(f"dataset.folds is {self.folds!r}; legal is 2 to 8.")

    def hashes(self) -> dict[str, str]:
        return {FILE: SHA256}

    def split(self, seed: int) -> Split:
        return SPLITS.get((type(self), self.folds, seed), self, lambda: _split(self, seed))


@cache
def _encoded() -> tuple[Array, Array]:
    """Features (920, d) and labels (920,), in the file's order; missing is 0 with a flag of 1."""
    table = read_csv(FILE, SHA256)
    columns: dict[str, Array] = {}
    for name, (centre, spread) in NUMBERS.items():
        values = table[name].astype(float)
        missing = values.isna() | ((values == 0) if name == "chol" else False)
        columns[name] = np.where(missing, 0.0, (values - centre) / spread)
        columns[f"{name}?"] = missing.to_numpy(dtype=float)
    for name, levels in CATEGORIES.items():
        texts = table[name].astype("string").str.strip()
        texts = texts.str.upper() if levels == ("TRUE",) else texts
        for level in levels:
            columns[f"{name}={level}"] = (texts == level).fillna(False).to_numpy(dtype=float)
        columns[f"{name}?"] = texts.isna().to_numpy(dtype=float)
    features = pd.DataFrame(columns).to_numpy(dtype=np.float32)
    return features, (table["num"].to_numpy() > 0).astype(np.int64)


def _split(dataset: HeartHospital, seed: int) -> Split:
    features, labels = _encoded()
    rows = np.flatnonzero(read_csv(FILE, SHA256)["dataset"].to_numpy() == dataset.hospital)
    folds = StratifiedKFold(dataset.folds, shuffle=True, random_state=seed // dataset.folds)
    train, test = list(folds.split(rows, labels[rows]))[seed % dataset.folds]
    parts = (rows[np.sort(part)].astype(np.int64) for part in (train, test))
    training, held_out = (Examples(part, features[part], labels[part]) for part in parts)
    return Split(training=training, held_out=held_out)
