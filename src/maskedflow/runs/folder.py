"""The folder of a run that begins: an earlier one in it is not lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from maskedflow.files import exclusive, sweep

from .run import ESTIMATOR, MEMBERS

__all__ = ["in_place_of_earlier"]


@contextmanager
def in_place_of_earlier(
    directory: Path, tell: Callable[[str], None], *, resume: bool = False
) -> Iterator[None]:
    """Moves an earlier run out of the way; whoever forgot to resume it can move it back.

    If nothing comes of the new one, not even first weights, all is put back as it was.

    Args:
        directory: The folder.
        tell: Is told what was moved, a sentence each.
        resume: Whether to go on with the earlier run instead, if it has weights.

    Raises:
        ValueError: If another process has a run there.
    """
    fresh = not directory.exists() or not any(directory.iterdir())
    with exclusive(directory):
        if resume and _has_weights(directory):
            yield
            return
        earlier = any((directory / name).exists() for name in ("checkpoints", ESTIMATOR, MEMBERS))
        aside = _set_aside(directory, tell) if earlier else None
        with exclusive(directory):  # the new one, if the earlier one was moved
            try:
                yield
            except BaseException:
                if (fresh or aside is not None) and not _has_weights(directory):
                    shutil.rmtree(directory, ignore_errors=True)
                    if aside is not None:
                        aside.rename(directory)
                        tell(f"the earlier run is back in {directory}")
                raise


def _has_weights(directory: Path) -> bool:
    """Whether there is anything that a training or a search can go on from."""
    files = "checkpoints/latest.safetensors", ESTIMATOR
    return any((directory / name).exists() for name in files) or any(
        (directory / MEMBERS).glob("[!.]*.safetensors")
    )


def _set_aside(directory: Path, tell: Callable[[str], None]) -> Path:
    """Gives a run's folder another name."""
    for folder in (directory, *(path for path in directory.iterdir() if path.is_dir())):
        sweep(folder)
    number = 1
    while (aside := directory.with_name(f"{directory.name}.{number}")).exists():
        number += 1
    directory.rename(aside)
    tell(f"the earlier run in {directory} is now {aside}")
    return aside
