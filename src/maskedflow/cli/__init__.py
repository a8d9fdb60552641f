"""The ``maskedflow`` command: argument parsing and printing only.

Each command is one file. None of them imports torch before it runs, so that ``--help`` answers at
once. Other packages add commands as entry points of the group ``maskedflow.commands``.
"""

import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points, version
from types import FrameType
from typing import Never

from cyclopts import App, CycloptsError, Parameter

from maskedflow.cli.compare import compare
from maskedflow.cli.datasets import datasets
from maskedflow.cli.evaluate import evaluate
from maskedflow.cli.options import config_file, whole_numbers
from maskedflow.cli.output import logged
from maskedflow.cli.processes import tells
from maskedflow.cli.report import report
from maskedflow.cli.sample import sample
from maskedflow.cli.schema import schema
from maskedflow.cli.score import score
from maskedflow.cli.train import train
from maskedflow.recipes import RECIPES

__all__ = ["app", "main"]

app = App(
    name="maskedflow",
    help="Exact density estimation with masked autoregressive flows.",
    version=lambda: version("maskedflow"),
    help_format="plaintext",
    config=whole_numbers,
    suppress_keyboard_interrupt=False,
    # Options are spelled with underscores; main() turns --hidden-dim into --hidden_dim.
    # The help texts themselves say what a default is.
    default_parameter=Parameter(negative=(), show_default=False, name_transform=lambda name: name),
)
app.command(
    train,
    config=(config_file, whole_numbers),
    help_epilogue="\n".join(
        [
            "Flows:",
            *(f"  {name:14}{recipe.title}" for name, recipe in RECIPES.items()),
            f"  {'auto':14}of --data: flows, mixtures, kernels and trees, stacked",
        ]
    ),
)
for command in (schema, evaluate, sample, score, report, compare, datasets):
    app.command(command)
app.register_install_completion_command(
    "--install_completion",
    help="Have the shell (bash, zsh, fish, PowerShell) complete commands and options.",
)


def main(arguments: Sequence[str] | None = None) -> Never:
    """Run the command line and exit: 0, 2 for a user's error, 130 or 143 when told to stop.

    A user's error is one line on stderr. Anything else that goes wrong is a bug and keeps its
    traceback.

    Args:
        arguments: The words after ``maskedflow``; ``sys.argv[1:]`` by default.
    """
    _wait_politely()
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        _add_commands_of_others(tokens[:1])
        with logged():
            app(
                [_underscored(token) for token in tokens],
                print_error=False,
                exit_on_error=False,
                result_action="return_value",
            )
    except BrokenPipeError:  # who reads standard output has enough: head, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a shell has it
    # The library raises ValueError and OSError for what a user can put right, and nothing else.
    except (CycloptsError, ValueError, OSError) as error:
        _tell(_one_line(error))
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        # torch has no type of its own for it
        if not isinstance(error, MemoryError) and "can't allocate memory" not in str(error):
            raise
        _tell("not enough memory for networks or tables of this size")
        sys.exit(2)
    except KeyboardInterrupt as error:
        told = signal.SIGTERM if isinstance(error, _Terminated) else signal.SIGINT
        _tell("; ".join([_STOPPED[told], *getattr(error, "__notes__", ())]))
        sys.exit(128 + told)
    finally:
        signal.signal(signal.SIGTERM, before)
    sys.exit(0)


def _tell(line: str) -> None:
    """Says why the command ends, if no other process of its group has."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends already
    if tells():
        print(f"maskedflow: {line}", file=sys.stderr)


def _add_commands_of_others(first: Sequence[str]) -> None:
    """Adds what other packages have, unless the first word is a command or an option of our own."""
    if first and first[0] in app and first[0] not in app.help_flags:
        return
    for point in entry_points(group="maskedflow.commands"):
        if point.name in app:
            continue
        try:
            app.command(point.load(), name=point.name)
        except Exception as error:  # of a stranger's code: it costs no one else their command
            told = f"{point.name}: cannot load {point.value}: {_one_line(error)}"
            if point.name in first:
                raise ValueError(told) from error
            print(f"note: {told}", file=sys.stderr)


class _Terminated(KeyboardInterrupt):
    """Told to stop by another process; what has been begun is cleared away as by Ctrl-C."""


_STOPPED = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def _terminate(number: int, frame: FrameType | None) -> Never:
    raise _Terminated


def _wait_politely() -> None:
    """Has idle threads sleep, unless the user has chosen how they wait.

    By default they spin, and where another process has a core, the one that spins on it is not
    there when it has work: training becomes ten times as slow. OpenMP reads this once, when torch
    is loaded.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _underscored(token: str) -> str:
    """``--hidden-dim=5`` as ``--hidden_dim=5``; whatever is no long option as it is."""
    if not token.startswith("--"):
        return token
    name, equals, value = token[2:].partition("=")
    return "--" + name.replace("-", "_") + equals + value


def _one_line(error: BaseException) -> str:
    """The message without its line breaks, and an OSError without its number."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
