"""Artifacts: written whole, read as if an enemy had made them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.exchange import Array, FedpactError
from parties.reuse.artifact import (
    CARD,
    FILES,
    GOLDEN,
    MANIFEST,
    MOST_GOLDEN,
    SIGNATURE,
    WEIGHTS,
    Parcel,
    collect,
    convert,
    read_artifact,
)
from parties.reuse.bounded import ArtifactError, read_arrays, read_json, read_weights
from parties.reuse.card import read_card
from parties.reuse.checks import BLOCK
from parties.reuse.gate import Gate
from parties.reuse.manifest import (
    digest_of,
    read_manifest,
)
from parties.reuse.signing import make_keys, sign
from tests.offers import (
    CARD_OF_PEER,
    MANIFEST_OF_PEER,
    PARENT,
    Payload,
    World,
    digits,
    peer,
    plain,
    public,
    put,
    receiver,
    speaking,
)
from tests.offers import healthy as healthy
from tests.offers import keys as keys
from tests.offers import world as world

# ------------------------------------------------------------------------------ made by an enemy


EARLY = (1, 2, 3)


def refused_early(content: dict[str, bytes], keys: Path) -> str:
    """The reason for which checks 1 to 3 refuse."""
    gate = Gate(checks=EARLY, keys=public(keys))
    adoption = gate.judge(Parcel(content), receiver())
    assert adoption.decision == "refuse"
    return adoption.blocking[0]


@pytest.mark.parametrize("name", FILES)
def test_no_truncation_and_none_of_ten_thousand_flipped_bits_is_loaded(
    name: str, healthy: dict[str, bytes], keys: Path
) -> None:
    rng = np.random.default_rng([5, len(name)])
    whole = healthy[name]
    for cut in rng.integers(0, len(whole), 200):
        refused_early({**healthy, name: whole[:cut]}, keys)
    for bit in rng.integers(0, 8 * len(whole), 2000):
        spoilt = bytearray(whole)
        spoilt[bit // 8] ^= 1 << (bit % 8)
        reason = refused_early({**healthy, name: bytes(spoilt)}, keys)
        assert name in reason or name in (MANIFEST, SIGNATURE)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name: str, healthy: dict[str, bytes], keys: Path) -> None:
    left = {n: content for n, content in healthy.items() if n != name}
    assert name in refused_early(left, keys)


def signed_again(
    content: dict[str, bytes], name: str, found: bytes, keys: Path
) -> dict[str, bytes]:
    """An enemy with alpha's key: another file, with its right hash in a signed manifest."""
    said = json.loads(content[MANIFEST])
    said["files"][name] = {"sha256": hashlib.sha256(found).hexdigest(), "size": len(found)}
    manifest = json.dumps(said).encode()
    signature = sign(manifest, keys / "alpha.key")
    return {**content, name: found, MANIFEST: manifest, SIGNATURE: signature}


def zipped(packing: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def npy(array: Array, **kw: Any) -> bytes:
    made = io.BytesIO()
    np.save(made, array, **kw)
    return made.getvalue()


@cache
def golden_bomb() -> bytes:
    """128 MB of zeros in 130 kB, otherwise as golden files are."""
    many = npy(np.zeros((1 << 19, 64), np.float32))
    return zipped(**{"inputs.npy": many, "logits.npy": npy(np.zeros((1 << 19, 1), np.float32))})


def lying_bomb() -> bytes:
    """A zip directory that says 100 bytes where 128 MB are packed."""
    made = bytearray(golden_bomb())
    at = made.index(b"PK\x01\x02")
    made[at + 24 : at + 28] = struct.pack("<I", 100)
    return bytes(made)


def golden_objects(marker: Path) -> bytes:
    objects = npy(np.array([Payload(marker)], object), allow_pickle=True)
    return zipped(**{"inputs.npy": objects, "logits.npy": npy(np.zeros((1, 10), np.float32))})


def golden_named(name: str) -> bytes:
    rows = npy(np.zeros((1, 10), np.float32))
    return zipped(**{"inputs.npy": rows, name: rows})


def golden_packed_by(packing: int) -> bytes:
    rows = {"inputs.npy": digits()[0][:4], "logits.npy": np.zeros((4, 10), np.float32)}
    return zipped(packing, **{name: npy(array) for name, array in rows.items()})


def huge_npy() -> bytes:
    head = "{'descr': '<f4', 'fortran_order': False, 'shape': (2147483648, 64), }"
    text = head.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def header(tensors: Any, body: bytes = b"", length: int | None = None) -> bytes:
    text = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(shape: Any, begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def enemies(marker: Path) -> dict[str, tuple[str, bytes]]:
    good = {"a": entry([1], 0, 4)}
    one = {"inputs.npy": huge_npy(), "logits.npy": huge_npy()}
    return {
        "pickle for weights": (WEIGHTS, pickle.dumps(Payload(marker))),
        "pickle for golden": (GOLDEN, pickle.dumps(Payload(marker))),
        "objects in golden": (GOLDEN, golden_objects(marker)),
        "zip bomb": (GOLDEN, golden_bomb()),
        "zip bomb that lies": (GOLDEN, lying_bomb()),
        "member above the folder": (GOLDEN, golden_named("../logits.npy")),
        "absolute member": (GOLDEN, golden_named("/tmp/logits.npy")),
        "another packing": (GOLDEN, golden_packed_by(zipfile.ZIP_BZIP2)),
        "2^31 rows in golden": (GOLDEN, zipped(**one)),
        "2^31 elements": (WEIGHTS, header({"a": entry([2**31], 0, 2**33)}, b"\0" * 64)),
        "2^62 x 8 elements": (WEIGHTS, header({"a": entry([2**62, 8], 0, 0)})),
        "a header of 2^63 bytes": (WEIGHTS, header(good, b"\0" * 4, 2**63)),
        "overlapping tensors": (
            WEIGHTS,
            header({"a": entry([2], 0, 8), "b": entry([1], 4, 8)}, b"\0" * 8),
        ),
        "a gap": (WEIGHTS, header({"a": entry([1], 4, 8)}, b"\0" * 8)),
        "bytes left over": (WEIGHTS, header(good, b"\0" * 5)),
        "negative offsets": (WEIGHTS, header({"a": entry([1], -4, 0)}, b"\0" * 4)),
        "negative sizes": (WEIGHTS, header({"a": entry([-1, -1], 0, 4)}, b"\0" * 4)),
        "objects for tensors": (WEIGHTS, header({"a": entry([1], 0, 8, "O")}, b"\0" * 8)),
        "no table": (WEIGHTS, header({"a": 3}, b"\0" * 4)),
        "a name twice": (WEIGHTS, header(b'{"a": 1, "a": 2}')),
        "a very deep header": (WEIGHTS, header(b'{"a":' * 100_000)),
        "no tensor": (WEIGHTS, header({})),
    }


@pytest.mark.parametrize("case", enemies(Path()))
def test_an_enemys_file_with_the_right_hash_and_signature_is_refused(
    case: str, healthy: dict[str, bytes], keys: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    name, found = enemies(marker)[case]
    spoilt = signed_again(healthy, name, found, keys)
    assert refused_early(spoilt, keys).startswith("3 no code: ")
    with pytest.raises(ArtifactError):
        read_artifact(put(tmp_path / "artifact", spoilt))
    assert [p.name for p in tmp_path.iterdir()] == ["artifact"]


def test_a_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    honest, lying = golden_bomb(), lying_bomb()
    tracemalloc.start()
    with pytest.raises(ArtifactError, match=r"unpacks to 1\d{8} bytes"):
        read_arrays(honest, ("inputs", "logits"), MOST_GOLDEN)
    with pytest.raises(ArtifactError):
        read_arrays(lying, ("inputs", "logits"), MOST_GOLDEN)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10e6
    fair = golden_packed_by(zipfile.ZIP_STORED)
    assert set(read_arrays(fair, ("inputs", "logits"), MOST_GOLDEN)) == {"inputs", "logits"}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl", ".PKL"])
def test_a_file_that_can_run_code_is_named_and_never_loaded(
    suffix: str, healthy: dict[str, bytes], keys: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    spoilt = {**healthy, f"model{suffix}": pickle.dumps(Payload(marker))}
    reason = refused_early(spoilt, keys)
    assert reason.startswith(f"3 no code: model{suffix}")
    with pytest.raises(ArtifactError, match="run code"):
        read_artifact(put(tmp_path / "artifact", spoilt))
    assert not marker.exists()


def link_weights(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "elsewhere")
    (folder / WEIGHTS).symlink_to(folder.parent / "elsewhere")


def pipe_card(folder: Path) -> None:
    (folder / CARD).unlink()
    os.mkfifo(folder / CARD)


@pytest.mark.parametrize(
    "spoil",
    [
        link_weights,
        pipe_card,
        lambda folder: (folder / "more").mkdir(),
        lambda folder: (folder / "run.sh").write_text("true"),
        lambda folder: (folder / ".hidden").symlink_to("/etc/passwd"),
    ],
    ids=["a linked file", "a pipe", "a folder inside", "a stray file", "a hidden link"],
)
def test_only_plain_files_of_an_artifact_are_read(
    spoil: Callable[[Path], None], world: World
) -> None:
    adoption = replace(world, after=spoil).judge()
    assert speaking(adoption) == {1: BLOCK}


def test_a_linked_folder_and_no_folder_are_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(world.write())
    for path in (tmp_path / "link", tmp_path / "nothing", world.folder / MANIFEST):
        with pytest.raises(ArtifactError, match="no folder"):
            world.policy().judge(path, receiver())


def test_files_over_the_limit_are_not_read(world: World) -> None:
    parcel = collect(world.write(), 10_000)
    assert WEIGHTS not in parcel.content
    adoption = Gate(max_folder_mb=0.01, checks=EARLY).judge(world.folder, receiver())
    assert "left to read" in adoption.blocking[0]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("files", "../../evil"), {"sha256": PARENT, "size": 1}),
        (("files", "/etc/passwd"), {"sha256": PARENT, "size": 1}),
        (("files", WEIGHTS), {"sha256": PARENT, "size": -1}),
        (("tensors", "0.weight"), {"shape": [2**31, -1], "dtype": "F32"}),
        (("tensors", "0.weight"), {"shape": [64, 64], "dtype": "object"}),
        (("round",), True),
        (("epsilon",), "8"),
        (("epsilon",), 10**400),
        (("firm",), "alp\u202eha"),
        (("firm",), "\ud800"),
        (("backbone",), {"class": "a.B", "fields": {"widths": [1] * 10_000}}),
        (("inputs", "shape"), []),
        (("outputs", "classes"), ["a", "a"]),
        (("backbone",), {"class": "os.system"}),
        (("more",), 1),
    ],
)
def test_a_manifest_with_a_strange_value_is_refused_though_it_is_signed(
    path: tuple[str, ...], value: Any, healthy: dict[str, bytes], keys: Path
) -> None:
    said = json.loads(healthy[MANIFEST])
    place = said
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    manifest = json.dumps(said).encode()
    signature = sign(manifest, keys / "alpha.key")
    spoilt = {**healthy, MANIFEST: manifest, SIGNATURE: signature}
    assert refused_early(spoilt, keys).startswith("1 files: ")


def test_a_class_of_another_package_is_never_imported(world: World) -> None:
    adoption = world.of(backbone={"class": "os.system", "fields": {}}).judge()
    assert speaking(adoption) == {4: BLOCK}
    assert "not one that the firm builds" in adoption.blocking[0]


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 1}',
        b"[]",
        '{"a": "é"}'.encode("latin1"),
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_json_that_programs_read_differently_is_refused(text: bytes) -> None:
    with pytest.raises(ArtifactError):
        read_json(text, "it")


READERS: dict[str, Callable[[bytes], object]] = {
    MANIFEST: read_manifest,
    CARD: read_card,
    WEIGHTS: lambda content: read_weights(content, WEIGHTS),
    GOLDEN: lambda content: read_arrays(content, ("inputs", "logits"), 1 << 20),
}


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_reader_of_any_bytes_raises_the_declared_error_only(
    name: str, healthy: dict[str, bytes], data: st.DataObject
) -> None:
    content = healthy[name]
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, min(len(content), 400)))
        end = data.draw(st.integers(at, min(len(content), at + 20)))
        content = content[:at] + data.draw(st.binary(max_size=20)) + content[end:]
    else:
        content = data.draw(st.binary(max_size=200))
    try:
        READERS[name](content)
    except FedpactError as fault:
        assert str(fault)  # noqa: PT017  (any other kind of error fails the test)


def test_a_pickle_is_converted_on_request_only(tmp_path: Path) -> None:
    state = {name: torch.from_numpy(array) for name, array in peer().items()}
    torch.save(state, tmp_path / "model.pt")
    convert(tmp_path / "model.pt", tmp_path / WEIGHTS)
    read = read_weights((tmp_path / WEIGHTS).read_bytes(), WEIGHTS)
    assert digest_of(read) == digest_of(peer())
    marker = tmp_path / "marker"
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(ArtifactError, match="safetensors"):
        convert(tmp_path / "evil.pt", tmp_path / "evil.safetensors")
    assert not marker.exists()


# ---------------------------------------------------------------------------- writing and keys


def test_what_is_written_is_read(world: World) -> None:
    read = read_artifact(world.write())
    assert digest_of(read.weights) == digest_of(peer())
    assert read.card == CARD_OF_PEER
    assert plain(read.manifest) == plain(MANIFEST_OF_PEER)
    assert read.golden is not None
    assert np.array_equal(read.golden.inputs, digits()[0][:4])


def test_an_artifact_is_written_whole_or_not_at_all(world: World) -> None:
    with pytest.raises(FedpactError, match=r"cannot be read"):
        replace(world, signer="nobody").write()
    assert list(world.folder.parent.iterdir()) == []
    world.write()
    with pytest.raises(ArtifactError, match="never changed"):
        world.write()
    assert list(world.folder.parent.iterdir()) == [world.folder]


def test_a_key_is_its_owners_alone_and_never_replaced(tmp_path: Path) -> None:
    secret, public_key = make_keys(tmp_path, "gamma")
    assert secret.stat().st_mode & 0o777 == 0o600
    assert "PUBLIC" in public_key.read_text()
    with pytest.raises(FedpactError, match="never replaced"):
        make_keys(tmp_path, "gamma")


def test_a_key_may_be_pinned_as_text(world: World, keys: Path) -> None:
    texts = {"alpha": (keys / "alpha.pub").read_text()}
    adoption = replace(world, gate={"keys": texts, "checks": EARLY, "demanded": ()}).judge()
    assert speaking(adoption) == {}
