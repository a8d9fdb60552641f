"""No number depends on threads: on how many there are, on which come, or on a fork."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from commands import run
from digests import FLOWS, digests
from maskedflow.kernels import threads
from maskedflow.kernels.entries import _compiling
from maskedflow.kernels.threads import Team
from maskedflow.transforms import logistic
from strategies import Case

HERE = Path(__file__).parent
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

#: Teams that are smaller than what is asked for, one way or another, and larger than the machine.
SETTINGS = {
    "plain": {},
    "dynamic": {"OMP_DYNAMIC": "true"},
    "limit": {"OMP_THREAD_LIMIT": "1"},
    "levels": {"OMP_MAX_ACTIVE_LEVELS": "0"},
    "three": {"OMP_NUM_THREADS": "3"},
}


def python(*arguments: str, **environment: str) -> str:
    """What another Python prints, with none of this one's settings of threads.

    Its idle threads sleep, since others may use this machine.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "MKL_"))}
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**kept, "OMP_WAIT_POLICY": "passive", **environment},
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def grant(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes a runtime that is asked for four threads and grants another number."""

    def of(count: int) -> None:
        def start(function: int, job: int, asked: int, flags: int) -> None:
            assert 1 < asked <= 4
            call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(call, [job] * count))

        monkeypatch.setattr(threads, "_start", start)

    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(Team, "size", lambda _, work, most: min(4, most))
    return of


@pytest.fixture(scope="module")
def alone() -> dict[str, str]:
    """What one thread computes."""
    return {what: digest for name in FLOWS for what, digest in digests(name).items()}


@pytest.mark.parametrize("granted", [1, 2, 3, 4, 7])
def test_any_number_of_threads_may_come(
    grant: Callable[[int], None], granted: int, alone: dict[str, str]
) -> None:
    grant(granted)
    for name in FLOWS:
        for what, digest in digests(name).items():
            assert digest == alone[what], what


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "limit",
        pytest.param("three", marks=pytest.mark.slow),
        # Teams as small as that of the limit, in other ways.
        pytest.param("dynamic", marks=pytest.mark.slow),
        pytest.param("levels", marks=pytest.mark.slow),
    ],
)
def test_settings_of_openmp_change_nothing(name: str, alone: dict[str, str]) -> None:
    """A process of its own for each, since OpenMP reads its settings once."""
    found = json.loads(python("digests.py", **SETTINGS[name]))
    assert found["digests"] == alone
    assert found["came"] <= found["asked"]
    if name == "plain" and threads._start is not None and (os.cpu_count() or 1) > 1:
        assert found["came"] > 1


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch with four threads that could start."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(threads, "_start", print)


WORK = 100 * threads.WORTH_A_THREAD


def timed() -> Team:
    """A team that knows what one thread takes: a second."""
    team = Team()
    team.note(1, WORK, 1.0)
    team.alone = 0.0
    return team


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(
    ("worth", "most", "expected"),
    [(0, 9, 1), (1, 9, 1), (2, 9, 2), (99, 9, 4), (99, 3, 3), (99, 0, 1)],
)
def test_the_work_says_how_many_threads_are_asked_for(
    worth: int, most: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert timed().size(worth * threads.WORTH_A_THREAD, most) == expected
    assert Team().size(worth * threads.WORTH_A_THREAD, most) == 1  # it is timed alone first
    monkeypatch.setattr(threads, "_start", None)
    assert timed().size(worth * threads.WORTH_A_THREAD, most) == 1


@pytest.mark.usefixtures("four")
def test_threads_that_cost_time_are_not_asked_for_until_it_is_made_up_for() -> None:
    team = timed()
    sizes = []
    for _ in range(2 * threads.PAUSE):
        sizes.append(team.size(WORK, 9))
        team.note(sizes[-1], WORK, seconds=1.5 if sizes[-1] > 1 else 1.0)
    assert sizes[0] == sizes[threads.PAUSE // 2 + 1] == 4
    assert sizes.count(4) <= 4


@pytest.mark.usefixtures("four")
def test_a_call_is_timed_alone_now_and_then() -> None:
    """What one thread takes may have changed: threads that seem to be faster are not always."""
    team = timed()
    sizes = []
    for _ in range(8):
        sizes.append(team.size(WORK, 9))
        team.note(sizes[-1], WORK, seconds=0.9 * threads.FRESH)
    assert sizes == [4, 4, 1, 4, 4, 1, 4, 4]


@pytest.mark.usefixtures("four")
def test_threads_are_not_asked_for_while_other_calls_have_the_cores() -> None:
    team, sizes = timed(), []

    def ask(_: int) -> None:
        sizes.append(team.size(WORK, 9))

    class Nothing:
        class ctypes:
            data = 0

    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(ask)
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    threads.run_on(1, address, Nothing)
    assert sizes == [3]
    assert team.size(WORK, 9) == 4


def test_python_threads_do_not_disturb_each_other() -> None:
    flow = Case(9, hidden_features=(30,)).build()

    def draw(seed: int) -> Tensor:
        return flow().sample((500,), torch.Generator().manual_seed(seed))

    expected = [draw(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for found, alone in zip(pool.map(draw, range(8)), expected, strict=True):
            assert torch.equal(found, alone)


#: After torch's team, ours and scikit-learn's were used, children compute with all three.
FORKS = """
import multiprocessing, os, sys, warnings
import torch
from sklearn.cluster import KMeans
from digests import FLOWS, ask_for_all, digests

warnings.simplefilter("ignore")
ask_for_all()
matrix = torch.randn(600, 600, generator=torch.Generator().manual_seed(0))

def compute(name):
    assert torch.allclose(matrix @ matrix, torch.linalg.matrix_power(matrix, 2))
    KMeans(3, random_state=0, n_init=1).fit(matrix[:, :2].numpy())
    return digests(name)

if __name__ == "__main__":
    expected = {name: compute(name) for name in FLOWS}
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for name, found in zip(FLOWS, pool.map(compute, FLOWS)):
            assert found == expected[name], (found, expected[name])
    rows = torch.utils.data.DataLoader(
        list(FLOWS), num_workers=2, batch_size=None, multiprocessing_context="fork",
        collate_fn=compute,
    )
    assert list(rows) == list(expected.values())
    assert compute("MAF") == expected["MAF"]  # the parent has lost nothing
"""


@forks
def test_forked_children_compute(tmp_path: Path) -> None:
    """A child that waits for threads it has not got never ends, hence a process of its own."""
    script = tmp_path / "forks.py"
    script.write_text(FORKS)
    python(str(script), PYTHONPATH=os.pathsep.join([str(HERE), *sys.path]))


@forks
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_is_not_forked_while_another_thread_compiles() -> None:
    """Else it could never compile: who holds the lock has stayed behind."""
    holds = threading.Event()

    def hold() -> None:
        with _compiling:
            holds.set()
            threading.Event().wait(0.2)

    holder = threading.Thread(target=hold)
    holder.start()
    holds.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if _compiling.acquire(timeout=20) else 1)
    assert os.waitpid(child, 0)[1] == 0
    holder.join()
    assert _compiling.acquire(timeout=20)
    _compiling.release()


@pytest.mark.parametrize(("chosen", "expected"), [(None, "passive"), ("active", "active")])
def test_idle_threads_of_the_command_sleep_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, expected: str
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", chosen or "")
    if chosen is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    assert run("--version") == 0  # torch is here already, and reads it no more
    assert os.environ.get("OMP_WAIT_POLICY") == chosen
    monkeypatch.delitem(sys.modules, "torch")
    assert run("--version") == 0
    assert os.environ["OMP_WAIT_POLICY"] == expected


def test_the_command_loads_torch_after_it_has_chosen() -> None:
    loaded = python("-c", "import maskedflow.cli, sys; print('torch' in sys.modules)")
    assert loaded.strip() == "False"


@pytest.mark.parametrize("name", ["sigmoid", "softplus"])
def test_logistic_functions_do_not_depend_on_how_rows_are_shared(name: str) -> None:
    before = torch.get_num_threads()
    generator = torch.Generator().manual_seed(0)
    try:
        for size in range(70_000, 70_100):
            x = 3 * torch.randn(size, generator=generator)
            found = []
            for number in (1, 2):
                torch.set_num_threads(number)
                found.append(getattr(logistic, name)(x))
            assert torch.equal(*found)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[0], getattr(torch.nn.functional, name)(x))
