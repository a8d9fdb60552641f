#!/bin/sh
# Numba does not take a spoilt file of its cache for a missing one.
#
# numba 0.68.1 (llvmlite 0.50.0), CPython 3.11, Linux x86-64. A function with `cache=True` leaves an index (.nbi)
# and its code (.nbc). After a crash or on a full disk either may be cut. A *missing* file is compiled
# again. A cut one raises what pickle raises, in every process, until somebody deletes it by hand, and
# nothing in the message names the file:
#
#   index, empty               EOFError: Ran out of input
#   index, half                UnpicklingError: pickle data was truncated
#   index, all zeros           UnpicklingError: invalid load key, '\x00'.
#   code, empty                EOFError: Ran out of input
#   code, half                 UnpicklingError: pickle data was truncated
#   index or code, missing     42
#
# Valid input throughout: the program is the same each time. Ends with 1 if any of this has changed.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check numba==0.68.1

cat > "$folder/program.py" <<'END'
import numba


@numba.njit(cache=True)
def answer(x):
    return x + 1


print(answer(41))
END

cat > "$folder/try.py" <<'END'
import pathlib
import platform
import shutil
import subprocess
import sys

here = pathlib.Path(__file__).parent
cache, good = here / "__pycache__", here / "good"


def program():
    done = subprocess.run([sys.executable, here / "program.py"], capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def after(suffix, spoil):
    shutil.rmtree(cache)
    shutil.copytree(good, cache)
    (path,) = cache.glob("*." + suffix)
    content = path.read_bytes()
    if spoil is None:
        path.unlink()
    else:
        path.write_bytes(spoil(content))
    return program(), program()


assert program() == "42"
shutil.copytree(cache, good)
cases = [
    ("nbi", "empty", lambda content: b"", "EOFError"),
    ("nbi", "half", lambda content: content[: len(content) // 2], "UnpicklingError"),
    ("nbi", "all zeros", lambda content: bytes(len(content)), "UnpicklingError"),
    ("nbc", "empty", lambda content: b"", "EOFError"),
    ("nbc", "half", lambda content: content[: len(content) // 2], "UnpicklingError"),
    ("nbi", "missing", None, "42"),
    ("nbc", "missing", None, "42"),
]
print("python", platform.python_version(), platform.system(), platform.machine())
same = True
for suffix, name, spoil, expected in cases:
    found = after(suffix, spoil)
    same &= all(expected in one for one in found)
    print(f"{suffix} {name:16} {found[0]} | again: {found[1]}")
sys.exit(not same)
END

"$folder/venv/bin/python" -c 'import numba, llvmlite; print("numba", numba.__version__, "llvmlite", llvmlite.__version__)'
"$folder/venv/bin/python" "$folder/try.py"
