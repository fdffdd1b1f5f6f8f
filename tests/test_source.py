"""The code that travels: all of it, nothing else, and known again by its sha256."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from simulations.source import code_digest, code_files, copy_code


def test_a_copy_has_the_code_the_configuration_and_the_bundled_data_and_no_caches(
    tmp_path: Path,
) -> None:
    copy_code(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("conf", "parties", "server", "simulations")
    }
    names = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert names == set(code_files())
    assert {
        *("conf/config.yaml", "parties/datasets/files/taiwan_credit.csv.gz", "server/app.py"),
        *("simulations/report.html", "simulations/engines/ray_crew.py"),
    } <= names
    assert not [name for name in names if "__pycache__" in name or "/." in name]


def test_a_copy_has_the_sha256_of_the_original_until_a_byte_of_it_changes(tmp_path: Path) -> None:
    copy_code(tmp_path)
    assert digest_below(tmp_path) == code_digest()
    with (tmp_path / "parties" / "app.py").open("a") as file:
        file.write("#\n")
    assert digest_below(tmp_path) != code_digest()


def digest_below(folder: Path) -> str:
    """What another process that has this folder first on its path says of its code."""
    done = subprocess.run(
        [sys.executable, "-c", "from simulations.source import code_digest; print(code_digest())"],
        env=os.environ | {"PYTHONPATH": str(folder)},
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
