"""Whether threads, forks, a busy core or spoilt compiled code change a number, or stop one.

    python benchmarks/faults/threads.py [--tries 40] [settings forks spoilt busy]

Minutes. Prints each kind that was tried, and whether it held.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness import asked, tell

COMPUTE = """
import hashlib, os, sys, warnings
import torch
import maskedflow as mf
warnings.simplefilter("ignore")

def rows(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

FLOWS = {
    "maf": lambda: mf.flows.MAF(8, hidden_features=(200, 200)),
    "nsf": lambda: mf.flows.NSF(6, hidden_features=(200, 200)),
    "made": lambda: mf.flows.MADE(30, hidden_features=(300,), activation=torch.nn.GELU),
    "realnvp": lambda: mf.flows.RealNVP(8, hidden_features=(100, 100)),
    "iaf": lambda: mf.flows.IAF(8, hidden_features=(200, 200)),
    "gf": lambda: mf.flows.GF(4),
    "naf": lambda: mf.flows.NAF(3, transforms=1, hidden_features=(30,)),
}

def compute(name):
    torch.manual_seed(0)
    flow = FLOWS[name]()
    x = rows(2000, flow.base().event_shape[0], seed=1)
    log_prob = flow().log_prob(x)
    gradient = torch.autograd.grad(log_prob.mean(), list(flow.parameters()))
    samples = flow().sample((500,), torch.Generator().manual_seed(2))
    optimizer = torch.optim.Adam(flow.parameters(), fused=True)
    for _ in range(3):
        optimizer.zero_grad()
        (-flow().log_prob(x).mean()).backward()
        optimizer.step()
    numbers = (log_prob, samples, *gradient, *flow.parameters())
    return torch.cat([tensor.detach().flatten() for tensor in numbers])

def digest(numbers):
    return hashlib.sha256(numbers.numpy().tobytes()).hexdigest()[:16]
"""

SETTINGS: dict[str, dict[str, str]] = {
    "nothing set": {},
    "dynamic": {"OMP_DYNAMIC": "true"},
    "a limit of one": {"OMP_THREAD_LIMIT": "1"},
    "no levels": {"OMP_MAX_ACTIVE_LEVELS": "0"},
    "three threads": {"OMP_NUM_THREADS": "3"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "dynamic, active": {"OMP_DYNAMIC": "true", "OMP_WAIT_POLICY": "active"},
    "nested": {"OMP_NESTED": "true"},
    "one thread in MKL": {"MKL_NUM_THREADS": "1"},
}

FORK = """
name = sys.argv[1]
expected = compute(name)
a = rows(800, 800, seed=0)
a @ a
child = os.fork()
if child == 0:
    found = compute(name)
    close = torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    os._exit(0 if close else 1)
assert os.waitpid(child, 0)[1] == 0
"""

ONCE = """
flow = mf.flows.MAF(3, hidden_features=(8,))
flow().log_prob(torch.zeros(2, 3)).sum().backward()
flow().sample((2,))
"""


def python(code: str, *arguments: str, **environment: str) -> str:
    """What a fresh Python prints; the last line of its error if it fails."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "MKL_"))}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**kept, **environment},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "hung"
    return done.stdout.strip() if done.returncode == 0 else f"failed: {done.stderr[-200:]}"


def settings() -> Iterator[tuple[str, bool]]:
    """Each setting of OpenMP against one thread, bit by bit."""
    code = COMPUTE + "for name in FLOWS: print(name, digest(compute(name)))"
    alone = python(code, OMP_NUM_THREADS="1")
    for name, environment in SETTINGS.items():
        found = python(code, **environment)
        different = [
            a for a, b in zip(alone.split("\n"), found.split("\n"), strict=False) if a != b
        ]
        yield f"OpenMP, {name} {different or ''}", found == alone and "failed" not in found


def forks() -> Iterator[tuple[str, bool]]:
    """Each flow in a child, after its parent has used threads."""
    for name in ("maf", "nsf", "made", "realnvp", "iaf", "gf", "naf"):
        yield f"fork, {name}", python(COMPUTE + FORK, name) == ""


def spoilt(count: int) -> Iterator[tuple[str, bool]]:
    """Files of Numba's cache, cut, zeroed, changed, or gone."""
    source = random.Random(0)

    def hole(content: bytes) -> bytes:
        start = source.randrange(len(content))
        length = min(source.choice([1, 16, 4096]), len(content) - start)
        return content[:start] + bytes(length) + content[start + length :]

    kinds: dict[str, Callable[[bytes], bytes]] = {
        "cut": lambda content: content[: source.randrange(len(content))],
        "zeros": lambda content: bytes(len(content)),
        "hole": hole,
        "garbage": lambda content: source.randbytes(len(content)),
    }
    with tempfile.TemporaryDirectory() as folder:
        good, used = Path(folder, "good"), Path(folder, "used")
        python(COMPUTE + ONCE, NUMBA_CACHE_DIR=str(good))
        names = sorted(path.relative_to(good) for path in good.rglob("*.nb?"))
        for number in range(count):
            kind, name = source.choice([*kinds, "a folder"]), source.choice(names)
            shutil.rmtree(used, ignore_errors=True)
            shutil.copytree(good, used)
            path = used / name
            before = path.read_bytes()
            after = before if kind == "a folder" else kinds[kind](before)
            path.unlink()
            if kind == "a folder":
                path.mkdir()
            else:
                path.write_bytes(after)
            found = python(COMPUTE + ONCE, NUMBA_CACHE_DIR=str(used))
            mended = kind == "a folder" or after == before or path.read_bytes() != after
            yield f"cache {number}, {kind}, {name.name}", found == "" and mended
        Path(folder, "file").touch()
        nowhere = {"NUMBA_CACHE_DIR": "", "NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator"}
        yield "no place for a cache", python(COMPUTE + ONCE, **nowhere) == ""


def busy() -> Iterator[tuple[str, bool]]:
    """The command beside a process that has a core: at most twice as long as with one thread."""
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    train = "import sys; from maskedflow.cli import main; main(sys.argv[1:])"
    seconds: dict[str, list[float]] = {"nothing set": [], "one thread": []}
    try:
        with tempfile.TemporaryDirectory() as out:
            for _ in range(3):
                for name, taken in seconds.items():
                    one = {"OMP_NUM_THREADS": "1"} if name == "one thread" else {}
                    words = f"train --dataset moons --epochs 2 --no_report --out {out}".split()
                    start = time.monotonic()
                    python(train, *words, **one)
                    taken.append(time.monotonic() - start)
    finally:
        spinner.kill()
    usual, one = (statistics.median(taken) for taken in seconds.values())
    yield f"beside a busy process: {usual / one:.2f} times as long as one thread", usual < 2 * one


def main() -> int:
    """Tries all, and counts."""
    wanted = asked(__doc__, tries=40)
    kinds = {
        "settings": settings,
        "forks": forks,
        "spoilt": lambda: spoilt(wanted.tries),
        "busy": busy,
    }
    return tell(one for kind in wanted.of(kinds).values() for one in kind())


if __name__ == "__main__":
    sys.exit(main())
