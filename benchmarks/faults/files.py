"""Files that were changed, cut or swapped for something else: refused in a line, or as before.

    python benchmarks/faults/files.py

A flow's run, a table's run and an estimator file are written by short fits and then damaged, one
change at a time. Opening one and scoring a few rows has to end in a ValueError or OSError of one
line, or in the same scores, within two seconds of computing and 200 MB. A change that leaves no
checksum, as in files of earlier builds, may score otherwise where it means something, but not fail
otherwise.
"""

from __future__ import annotations

import copy
import json
import os
import resource
import shutil
import socket
import struct
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tomli_w
import torch
from harness import asked
from safetensors import safe_open
from safetensors.torch import save_file

import maskedflow as mf
from maskedflow.cli import main as command
from maskedflow.data import write_batches, write_table

SECONDS, BYTES = 2.0, 200 * 2**20
ODD: tuple[Any, ...] = ("text", -1, 10**6, 10**9, 10**15, 2**70, 0.5, 1e308, float("inf"))
ODD += (float("nan"), True, [], {}, [10**9] * 3, [[]], "x" * 10**6)

OTHERS = ("/dev/zero", "/dev/null", "/dev/random", "/proc/self/mem", "gone")

Score = Callable[[], np.ndarray]


class Tally:
    """What was tried and what held, by kind."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.held: Counter[str] = Counter()

    def add(self, kind: str, held: bool, what: str) -> None:
        self.tried[kind] += 1
        self.held[kind] += held
        if not held:
            print(f"  {kind}: {what}", flush=True)

    def judge(self, kind: str, what: str, score: Score, wanted: np.ndarray, free: bool) -> None:
        """Opens and scores; `free` is whether other scores are no fault."""
        peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            found = score()
            same = found.shape == wanted.shape and np.allclose(found, wanted, rtol=1e-5, atol=1e-5)
            held, how = free or same, "other scores"
        except (ValueError, OSError) as error:
            held, how = "\n" not in str(error) and len(str(error)) < 2000, repr(str(error))[:200]
        except Exception as error:
            held, how = False, f"{type(error).__name__}: {error}"[:200]
        seconds = time.process_time() - start
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak)
        if seconds > SECONDS or grown > BYTES:
            held, how = False, f"{seconds:.1f} s, {grown >> 20} MB"
        self.add(kind, held, f"{what}: {how}")


# ----------------------------------------------------------------------------------- what is there


def write_all(folder: Path) -> dict[str, tuple[Path, Score]]:
    """A run of a flow, a run of a table, and an estimator with a context; how each is scored."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    write_table(folder / "t.csv", ["a", "b", "c"], [torch.from_numpy(x).float()])
    mixed = pa.table(
        {
            "x": x[:, 0],
            "above": np.exp(x[:, 1]),
            "kind": np.where(x[:, 2] > 0, "u", "v"),
            "wind": rng.uniform(0, 360, 300),
            "given": x[:, 2],
        }
    )
    write_batches(folder / "m.parquet", mixed.schema, mixed.to_batches())
    (folder / "s.toml").write_text('[columns.wind]\nkind = "angle"\nperiod = 360\n')
    small = ["--hidden_dim=8", "--num_layers=2", "--epochs=2", "--batch_norm", "--base=student-t"]
    flow = ["--data", folder / "t.csv", "--flow", "nsf", "--context", "c", *small]
    table = ["--data", folder / "m.parquet", "--schema", folder / "s.toml", "--time_limit", "4"]
    for words in (flow, table):
        with suppress(SystemExit):
            command(["train", *map(str, words), "--out", str(folder), "--no_report"])
    c = torch.from_numpy(x[:20, 2:]).float()
    rows = torch.from_numpy(x[:20, :2]).float()
    estimator = mf.DensityEstimator(
        "gaussian", time_limit=2.0, schema={"wind": {"kind": "angle", "period": 360}}
    )
    estimator.fit(mixed.drop(["given"]), context=mixed.select(["given"])).save(
        folder / "e.safetensors"
    )
    few = mixed.slice(0, 20)

    def of_flow() -> np.ndarray:
        return mf.load_run(folder / "t").flow(c).log_prob(rows).detach().numpy()

    def of_table() -> np.ndarray:
        return mf.load_run(folder / "m").density.log_prob(few)

    def of_file() -> np.ndarray:
        opened = mf.DensityEstimator.load(folder / "e.safetensors")
        return opened.score_samples(few.drop(["given"]), context=few.select(["given"]))

    return {
        "run": (folder / "t" / "checkpoints" / "best.safetensors", of_flow),
        "table's run": (folder / "m" / "estimator.safetensors", of_table),
        "estimator": (folder / "e.safetensors", of_file),
    }


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key).clone() for key in file.keys()}, dict(file.metadata())  # noqa: SIM118


# ---------------------------------------------------------------------------------------- changes


def tensors_changed(tensors: dict[str, torch.Tensor]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """A name, the tensors, and whether files without a checksum are refused too."""
    for key, tensor in tensors.items():
        if "/" in key:
            continue
        for what, value in (("nan", float("nan")), ("inf", float("inf"))):
            if tensor.is_floating_point() and tensor.numel():
                changed = tensor.clone()
                changed.view(-1)[-1] = value
                # a bound of its own may be infinite
                yield f"{key} {what}", {**tensors, key: changed}, bool(tensor.isfinite().all())
        scale = key.endswith(("scale", "slopes", "variance", "weights"))
        if tensor.numel():
            other = ~tensor if tensor.dtype == torch.bool else tensor + 1
            yield f"{key} shifted", {**tensors, key: other}, False
            flat = tensor.clone()
            flat.view(-1)[0] = 0
            yield f"{key} zero", {**tensors, key: flat}, scale
        if tensor.is_floating_point():
            yield f"{key} negative", {**tensors, key: -tensor}, scale
            yield f"{key} double", {**tensors, key: tensor.double() * 1.5}, False
        yield f"{key} reshaped", {**tensors, key: tensor[None].contiguous()}, True
        yield f"{key} gone", {k: v for k, v in tensors.items() if k != key}, True
        for twin, value in tensors.items():
            if twin > key and value.shape == tensor.shape and not torch.equal(value, tensor):
                yield f"{key} for {twin}", {**tensors, key: value, twin: tensor}, False
                break
    yield "another", {**tensors, "another": torch.zeros(1)}, True


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is a value: in every table, and the first two of a list."""
    if place:
        yield place
    if isinstance(value, list):
        value = dict(enumerate(value[:2]))
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield from leaves(inner, (*place, key))


def plain_changed(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value replaced, left out, or beside another one."""
    for place in leaves(document):
        for odd in (*ODD, None):
            changed = copy.deepcopy(document)
            at = changed
            for key in place[:-1]:
                at = at[key]
            if odd is None:
                del at[place[-1]]
            elif at[place[-1]] == odd:
                continue
            else:
                at[place[-1]] = odd
            yield f"{'.'.join(map(str, place))} = {odd!r:.20}", changed
            if isinstance(at, dict) and odd is None:
                at["extra"] = 1
                yield f"{'.'.join(map(str, place))} = {odd!r:.20}, extra", changed


def headers() -> Iterator[tuple[str, bytes]]:
    """Headers that are no table, or announce what is not there."""
    entry = '"a": {"dtype": "F32", "shape": [1], "data_offsets": %s}'
    for offsets in (
        "[0, 1e999]",
        "[0, -4]",
        "[4, 0]",
        "[0, 9223372036854775807]",
        "[0, 1" + "0" * 5000 + "]",
    ):
        yield f"offsets {offsets[:20]}", b"{" + (entry % offsets).encode() + b"}"
    for shape in ("[-1]", "[1e999]", "[4611686018427387904, 4]", "null", '"1"'):
        text = '{"a": {"dtype": "F32", "shape": %s, "data_offsets": [0, 4]}}'
        yield f"shape {shape}", (text % shape).encode()
    both = f"{{{entry % '[0, 4]'}, {entry.replace('a', 'b', 1) % '[2, 6]'}}}"
    yield "overlapping", both.encode()
    yield "twice", f"{{{entry % '[0, 4]'}, {entry % '[0, 4]'}}}".encode()
    for text in ("null", "[]", "1", '"a"', "{", "{}", '{"a": null}', '{"a": []}', '{"a": 1}'):
        yield text, text.encode()
    yield "nested lists", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    yield "nested tables", b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    for value in ("null", "[]", "1", '"a"', '{"maskedflow": 1}', '{"maskedflow": null}'):
        yield f"metadata {value}", f'{{"__metadata__": {value}}}'.encode()
    for value in (
        "null",
        "[]",
        "1",
        "a",
        "{}",
        "[" * 100_000,
        '{"estimator": null}',
        '{"a": 1e999}',
    ):
        inside = json.dumps({"__metadata__": {"maskedflow": value}})
        yield f"metadata holds {value[:20]}", inside.encode()
    million = {f"k{i}": "v" for i in range(10**6)}
    yield "a million keys", json.dumps({"__metadata__": {"maskedflow": "{}", **million}}).encode()
    yield "a long text", json.dumps({"__metadata__": {"maskedflow": "x" * 10**8}}).encode()
    yield "not UTF-8", b'{"\xff": 1}'


def places(path: Path, spare: Path) -> Iterator[tuple[str, bool]]:
    """Something else where a file was, and whether it is the same file after all."""
    kept = spare / "kept"
    shutil.move(path, kept)
    pipe = spare / "pipe"
    os.mkfifo(pipe)
    others = (pipe, spare, path, kept, *OTHERS)
    for name, make in (
        ("nothing", lambda: None),
        ("a folder", path.mkdir),
        ("a pipe", lambda: os.mkfifo(path)),
        ("a socket", lambda: socket.socket(socket.AF_UNIX).bind(str(path))),
        *((f"a link to {other}", partial(path.symlink_to, other)) for other in others),
    ):
        make()
        yield name, name.endswith("kept")
        with suppress(FileNotFoundError):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.move(kept, path)


# ------------------------------------------------------------------------------------------- tries


def try_tensors(tally: Tally, kind: str, path: Path, score: Score, wanted: np.ndarray) -> None:
    """Changes tensors, with the old checksum and with none."""
    whole = path.read_bytes()
    tensors, header = read(path)
    bare = {key: value for key, value in header.items() if key != "checksum"}
    for what, changed, told in tensors_changed(tensors):
        for metadata, free in ((header, False), (bare, not told)):
            save_file(changed, path, metadata)
            tally.judge(f"{kind}: tensors", what, score, wanted, free)
    path.write_bytes(whole)


def try_header(tally: Tally, kind: str, path: Path, score: Score, wanted: np.ndarray) -> None:
    """Changes plain values in the header, with the old checksum and with none."""
    whole = path.read_bytes()
    tensors, header = read(path)
    document = json.loads(header["maskedflow"])
    for what, changed in plain_changed(document):
        for keep in (True, False) if "text" in what else (False,):
            metadata = {**header, "maskedflow": json.dumps(changed)}
            if not keep:
                del metadata["checksum"]
            save_file(tensors, path, metadata)
            tally.judge(f"{kind}: plain values", what, score, wanted, not keep)
    if "estimator" in document:
        for what, changed in plain_changed(tomllib.loads(document["estimator"]["schema"])):
            with suppress(TypeError):  # what TOML cannot say
                inner = {**document["estimator"], "schema": tomli_w.dumps(changed)}
                save_file(tensors, path, {"maskedflow": json.dumps({"estimator": inner})})
                tally.judge(f"{kind}: schema", what, score, wanted, True)
    path.write_bytes(whole)


def try_bytes(tally: Tally, kind: str, path: Path, score: Score, wanted: np.ndarray) -> None:
    """Cuts a file, and puts other bytes in its place."""
    whole = path.read_bytes()
    for end in np.linspace(0, len(whole) - 1, 50).astype(int).tolist():
        path.write_bytes(whole[:end])
        # of a text the end may be missing, where all sections are there and it means as much
        tally.judge(f"{kind}: truncated", f"{end} bytes", score, wanted, False)
    if path.suffix == ".safetensors":
        for what, header in headers():
            path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
            tally.judge(f"{kind}: headers", what, score, wanted, False)
        for length in (0, 1, 2**20, 2**62, 2**64 - 1):
            path.write_bytes(struct.pack("<Q", length) + whole[8:])
            tally.judge(f"{kind}: headers", f"length {length}", score, wanted, False)
    else:
        for what, text in (
            ("nested", b"a = " + b"[" * 100_000),
            ("dotted", b".".join([b"a"] * 20_000) + b" = 1"),
            ("not UTF-8", b"\xff\xfe"),
            ("long", b"# a comment\n" * 10**6),
            ("a long number", b"a = " + b"1" * 10**5),
            ("zeros", bytes(10**5)),
        ):
            path.write_bytes(text)
            tally.judge(f"{kind}: texts", what, score, wanted, False)
    path.write_bytes(whole)


def try_record(tally: Tally, kind: str, path: Path, score: Score, wanted: np.ndarray) -> None:
    """Changes plain values in a `config.toml`."""
    whole = path.read_text()
    for what, changed in plain_changed(tomllib.loads(whole)):
        with suppress(TypeError):
            path.write_text(tomli_w.dumps(changed))
            tally.judge(f"{kind}: plain values", what, score, wanted, False)
    path.write_text(whole)


def try_places(tally: Tally, kind: str, path: Path, score: Score, wanted: np.ndarray) -> None:
    """Puts something else in a file's place."""
    with tempfile.TemporaryDirectory() as spare:
        for what, same in places(path, Path(spare)):
            absent = np.full(1, np.nan)  # which nothing is like
            tally.judge(f"{kind}: links", what, score, wanted if same else absent, False)


def main() -> int:
    """Tries everything."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, (path, score) in asked(__doc__).of(write_all(folder)).items():
            wanted = score()
            inside = () if kind == "table's run" else (try_tensors, try_header)  # as an estimator
            for attempt in (*inside, try_bytes, try_places):
                attempt(tally, kind, path, score, wanted)
                print(f"{kind}: {tally.held.total()} of {tally.tried.total()} so far", flush=True)
            record = next(
                iter([*path.parent.glob("config.toml"), *path.parents[1].glob("config.toml")]), None
            )
            if kind != "estimator" and record is not None:
                for attempt in (try_record, try_bytes, try_places):
                    attempt(tally, f"{kind}'s record", record, score, wanted)
            tally.add(f"{kind}: undamaged", bool(np.array_equal(score(), wanted)), "other scores")
    for kind, tried in tally.tried.items():
        print(f"{kind:30} {tally.held[kind]:5} of {tried}")
    print(f"held {tally.held.total()} of {tally.tried.total()}")
    return int(tally.held != tally.tried)


if __name__ == "__main__":
    sys.exit(main())
