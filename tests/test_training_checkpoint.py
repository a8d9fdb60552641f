"""Files of weights: what goes in comes out, and what is broken is named."""

from __future__ import annotations

import json
import math
import stat
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import maskedflow as mf
from maskedflow.training import load, save


def maf(seed: int = 0, **settings: Any) -> mf.flows.Flow:
    generator = torch.Generator().manual_seed(seed)
    settings = {"hidden_features": (16,), "transforms": 2, "batch_norm": True, **settings}
    return mf.flows.MAF(3, generator=generator, **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(dtype: torch.dtype, tmp_path: Path) -> None:
    flow, other = maf().to(dtype), maf(seed=1).to(dtype)
    metadata = {"columns": ["a", "β"], "options": {"lr": 1e-4, "context": None}}
    save(tmp_path / "new" / "flow.safetensors", flow, metadata)
    assert load(str(tmp_path / "new" / "flow.safetensors"), other) == metadata
    for key, value in flow.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    x = torch.randn(5, 3, dtype=dtype)
    assert torch.equal(flow.eval()().log_prob(x), other.eval()().log_prob(x))


def test_random_masks_are_loaded(tmp_path: Path) -> None:
    path = tmp_path / "flow.safetensors"
    flow, other = maf(degrees="random"), maf(seed=1, degrees="random")
    save(path, flow)
    load(path, other)
    x = torch.randn(5, 3)
    assert torch.equal(flow.eval()().log_prob(x), other.eval()().log_prob(x))


def test_tensors_that_share_memory(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        flow = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        flow[1].weight = flow[0].weight
        return flow

    flow, other = tied(), tied()
    save(tmp_path / "a.safetensors", flow)
    load(tmp_path / "a.safetensors", other)
    assert torch.equal(flow[0].weight, other[1].weight)


def test_the_file_is_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.with_suffix(".plain").touch()  # what the user's umask gives
    save(path, nn.Linear(2, 2), {"answer": 42})
    assert stat.S_IMODE(path.stat().st_mode) == path.with_suffix(".plain").stat().st_mode & 0o777
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    header = json.loads(path.read_bytes()[8 : 8 + length])
    assert json.loads(header["__metadata__"]["maskedflow"]) == {"answer": 42}


# --- a failing write


@pytest.mark.parametrize("where", ["safetensors.torch.save", "os.fsync", "os.replace"])
def test_a_failing_write_leaves_the_old_file(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    save(path, nn.Linear(2, 2))
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(where, fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.safetensors'"):
        save(path, nn.Linear(2, 2))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".a.safetensors.maskedflow.tmp").write_bytes(b"half a file")
    save(tmp_path / "a.safetensors", nn.Linear(2, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_metadata_that_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^metadata: expected JSON-serializable values"):
        save(tmp_path / "a.safetensors", nn.Linear(2, 2), {"loss": torch.zeros(1)})
    assert list(tmp_path.iterdir()) == []


# --- a file that cannot be read


def broken(path: Path, message: str) -> None:
    flow = nn.Linear(2, 2)
    before = flow.weight.clone()
    with pytest.raises(ValueError, match=message) as caught:
        load(path, flow)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert torch.equal(flow.weight, before)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, r"not a safetensors file, or truncated \(0 bytes\)"),
        (8, r"not a safetensors file, or truncated \(8 bytes\)"),
        (50, "truncated, its header has 42 bytes where"),
        (-1, "truncated, it has .* bytes where .* are announced"),
    ],
)
def test_truncated(size: int, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, nn.Linear(2, 2))
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    broken(path, message)


@pytest.mark.parametrize(
    "content",
    [b"\x80\x02}q\x00." * 20, b"a,b\n1,2\n" * 20, b"PK\x03\x04" + bytes(100), bytes(100)],
)
def test_another_format(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    broken(path, "not a safetensors file")


@pytest.mark.parametrize(
    "header", [b"{not json}", b"[1, 2]    ", b'{"a": 1}  ', b'{"a": {"data_offsets": [1]}}']
)
def test_a_header_that_is_no_table(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    broken(path, "not a safetensors file")


def test_a_header_that_lies(tmp_path: Path) -> None:
    header = b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}'
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    broken(path, "not a valid safetensors file")


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e999]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, -4]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"__metadata__": {"maskedflow": null}}',
        b'{"__metadata__": {"maskedflow": "{}", "maskedflow": "{}"}}',
        json.dumps({"__metadata__": {f"k{i}": "" for i in range(200_000)}}).encode(),
    ],
    ids=["infinite", "negative", "shape", "nested", "null", "twice", "many"],
)
def test_a_header_that_cannot_be(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    broken(path, "not a safetensors file, whose header is a table")


@pytest.mark.parametrize("metadata", ["null", "[]", "1", "{", "[" * 100_000])
def test_metadata_that_is_no_table(metadata: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(nn.Linear(2, 2).state_dict(), path, {"maskedflow": metadata})
    broken(path, "not a file whose 'maskedflow' can be read")


def test_a_file_that_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    square = torch.arange(4.0).view(2, 2)
    save(path, nn.ParameterDict({"a": square, "b": -square}), {"answer": 42})
    with safe_open(path, "pt") as file:
        header = file.metadata()
    for tensors, change in (
        ({"a": square, "b": -square + 1e-6}, {}),
        ({"a": -square, "b": square}, {}),  # swapped
        ({"a": square, "b": -square}, {"maskedflow": '{"answer": 43}'}),
    ):
        save_file(tensors, path, {**header, **change})
        broken(path, "changed since it was written")


def test_files_of_earlier_builds_have_no_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    flow = mf.transforms.Standardize(torch.zeros(2), torch.ones(2))
    save_file({"loc": torch.ones(2), "scale": torch.full((2,), 3.0)}, path, {"maskedflow": "{}"})
    load(path, flow)
    assert flow.scale.tolist() == [3.0, 3.0]
    for name, value, message in (
        ("loc", math.nan, "'loc' holds numbers that are not finite"),
        ("loc", math.inf, "'loc' holds numbers that are not finite"),
        ("scale", 0.0, "'scale' holds numbers that are not positive"),
        ("scale", -1.0, "'scale' holds numbers that are not positive"),
    ):
        tensors = {"loc": torch.ones(2), "scale": torch.ones(2), name: torch.tensor([1, value])}
        save_file(tensors, path, {"maskedflow": "{}"})
        with pytest.raises(ValueError, match=message):
            load(path, flow)
    assert flow.scale.tolist() == [3.0, 3.0]


def test_numbers_may_be_infinite_where_the_flow_has_such(tmp_path: Path) -> None:
    def bounds(high: float) -> nn.Module:
        module = nn.Module()
        module.register_buffer("high", torch.tensor([1.0, high]))
        return module

    save(tmp_path / "a.safetensors", bounds(math.inf))
    load(tmp_path / "a.safetensors", bounds(math.inf))
    with pytest.raises(ValueError, match="not finite"):
        load(tmp_path / "a.safetensors", bounds(2.0))


def test_metadata_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.safetensors: expected metadata of at most"):
        save(tmp_path / "a.safetensors", nn.Linear(2, 2), {"note": "x" * 2**24})
    assert list(tmp_path.iterdir()) == []


def test_a_safetensors_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, path)
    broken(path, "not written by maskedflow")


def test_another_flow(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, nn.Linear(3, 2))
    broken(path, r"'weight' is float32 \(2, 3\), the flow expects float32 \(2, 2\)")
    save(path, nn.Linear(2, 2).double())
    broken(path, r"'weight' is float64 \(2, 2\), the flow expects float32 \(2, 2\)")
    save(path, nn.Linear(2, 2, bias=False))
    broken(path, "does not hold 'bias', which the flow has")
    save(path, nn.Sequential(nn.Linear(2, 2)))
    broken(path, r"holds '0\.bias', which the flow does not have")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.safetensors: no such file"):
        load(tmp_path / "a.safetensors", nn.Linear(2, 2))
