"""A folder of images, a sub-folder a class, into pixels; every violation with its files."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image, UnidentifiedImageError

from parties.datasets.own.description import COLOURS, MOST_SHOWN, Description, Finding
from parties.datasets.own.holding import UNKNOWN, Features, Holding
from parties.datasets.own.parts import id_of
from parties.datasets.own.table import whole
from parties.exchange import Array

ENDINGS = (".png", ".jpg", ".jpeg")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # 8 bits a channel or fewer
WHITE = 255.0
BROKEN = (UnidentifiedImageError, OSError, ValueError, SyntaxError)  # Pillow raises them all


def read_images(said: Description, findings: list[Finding]) -> Holding:
    """What the folder holds; what is wrong is added to the findings."""
    assert said.images is not None
    top = said.folder / said.images.folder
    if not top.is_dir():
        findings.append(
            Finding("images.folder", f"is {top.name}, and no such folder is there. Correct it.")
        )
        return Holding(said, ())
    return _Folder(said, top, findings).holding()


@final
class _Folder:
    """Reads the images of all classes, in the order of their names."""

    def __init__(self, said: Description, top: Path, findings: list[Finding]) -> None:
        self.said, self.top, self.findings = said, top, findings
        self.files: list[Path] = []
        self.labels: list[int] = []
        classes = () if said.label is None else said.label.classes
        self.found = sorted(p.name for p in top.iterdir() if p.is_dir())
        for place, name in enumerate(classes):
            files = sorted(p for p in (top / name).glob("*") if p.suffix.lower() in ENDINGS)
            if not files:
                self._add(str(name), "is a class, and no image is in the sub-folder of its name.")
            self.files += files
            self.labels += [place] * len(files)
        rest = [name for name in self.found if name not in classes]
        if rest and classes and said.unused is not None and set(rest) - set(said.unused):
            self._add(
                ", ".join(rest),
                "are sub-folders of no class. List them in label.classes, or under unused.",
            )

    def holding(self) -> Holding:
        digest = hashlib.sha256()
        pixels = []
        problems: dict[str, list[str]] = {}
        for file in self.files:
            shown = f"{file.parent.name}/{file.name}"
            try:
                content = file.read_bytes()
            except OSError as fault:
                problems.setdefault(f"cannot be read ({fault.strerror}).", []).append(shown)
                continue
            digest.update(f"{shown}\0{hashlib.sha256(content).hexdigest()}\n".encode())
            read = self._pixels(content)
            if isinstance(read, str):
                problems.setdefault(read, []).append(shown)
            else:
                pixels.append(read)
        for problem, names in problems.items():
            self.findings.append(
                Finding(self.top.name, problem, tuple(names[:MOST_SHOWN]), len(names))
            )
        ids = self._ids()
        sound = not problems and bool(pixels) and ids is not None
        order = np.argsort(ids, kind="stable") if ids is not None else np.arange(len(self.files))
        values = np.stack(pixels)[order] if sound else None
        return Holding(
            self.said,
            (),
            {self.top.name: digest.hexdigest()},  # of all: files' names may tell of people
            len(self.files),
            tuple(self.found),
            ids=None if ids is None else ids[order],
            labels=np.array(self.labels, np.int64)[order],
            features=None
            if values is None
            else Features(values, np.zeros(values.shape[1], bool), WHITE),
        )

    def _pixels(self, content: bytes) -> Array | str:
        """Pixels (d,) uint8, row by row (red, green, blue of each, if rgb); or what is wrong."""
        assert self.said.images is not None
        height, width = self.said.images.size
        grey = COLOURS[self.said.images.colour] == 1
        try:
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
                found = (image.height, image.width)
                if found != (height, width):  # before anything is unpacked
                    return (
                        f"is {found[0]}x{found[1]} pixels; legal is {height}x{width} (height x "
                        "width), as images.size says. Resize it."
                    )
                if image.mode not in MODES:
                    return f"has pixels of kind {image.mode}; legal are {', '.join(MODES)}."
                flat: Array = np.asarray(image.convert("L" if grey else "RGB"), np.uint8)
                return flat.reshape(-1)
        except (*BROKEN, Image.DecompressionBombError) as fault:
            return f"is no PNG or JPEG that can be read ({type(fault).__name__}). Replace it."

    def _ids(self) -> Array | None:
        """Ids (n,) by the files' names without their ending."""
        if self.said.identity is None:
            return None
        numbers = self.said.identity.kind == "number"
        names = [file.stem for file in self.files]
        found = [whole(name) if numbers else id_of(name) for name in names]
        first: dict[int | None, int] = {}
        for place, own in enumerate(found):
            first.setdefault(own, place)
        bad = [n for n, own in zip(names, found, strict=True) if own is None]
        twice = [
            f"{self.files[p].parent.name}/{self.files[p].name}"
            for p, own in enumerate(found)
            if own is not None and first[own] != p
        ]
        for problem, rows in (
            ("is no id; legal is a whole number from 0 to 2^63 - 1 as a file's name.", bad),
            ("has the id of another image; legal is one image a client. Rename it.", twice),
        ):
            if rows:
                self.findings.append(Finding("id", problem, tuple(rows[:MOST_SHOWN]), len(rows)))
        return np.array([UNKNOWN if own is None else own for own in found], np.int64)

    def _add(self, where: str, problem: str) -> None:
        self.findings.append(Finding(where, problem))
