"""The finished steps of a search in a folder: one that was killed goes on from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import with_config
from torch import Tensor, nn
from typing_extensions import TypedDict

from maskedflow.files import CLOSED, Positive, blame, check, parse_json, read_text, write_text
from maskedflow.training import checkpoint

RECORD = "search.json"
"""The file that says of which search the steps in a folder are."""

Step = tuple[dict[str, Any], Mapping[str, Tensor]]
"""What comes of a step: plain values, and tensors."""


class Finished(NamedTuple):
    """What came of a step, and the file that it is in."""

    path: Path
    plain: dict[str, Any]
    tensors: Mapping[str, Tensor]

    def load(self, build: Callable[[], nn.Module]) -> Any:
        """Builds a module in double precision, and gives it the tensors.

        Raises:
            ValueError: If they are not those of the module.
        """
        with blame(self.path, "not a step of this search"):
            module = build().double()
            module.load_state_dict(dict(self.tensors))
        return module.eval()


class Checkpoints:
    """What a search has done so far, a file a step, so that none of it is done twice.

    All that follows from a step is made of its plain values and tensors, whether it was done now or
    before it was killed: so the search finds the same, to the last bit.

    Args:
        folder: Where the files lie; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder and folder.absolute()  # a worker may be elsewhere

    def begin(self, identity: str, work: float | None, settle: Callable[[], float]) -> float:
        """Begins a search, or goes on with the one that was begun.

        Args:
            identity: What it follows from, beside the work.
            work: The work that was asked for, if it was.
            settle: Chooses the work of a search that begins, if it was not.

        Returns:
            The work.

        Raises:
            ValueError: If another search was begun in the folder.
        """
        if self.folder is None:
            return settle() if work is None else work
        path = self.folder / RECORD
        if not path.is_file():
            work = settle() if work is None else work
            write_text(path, json.dumps({"identity": identity, "work": work}) + "\n")
            return work
        with blame(path, "not the record of a search"):
            then = check(_Record, parse_json(read_text(path)))
        if then["identity"] != identity:
            raise ValueError(
                f"{self.folder}: the search there is of other rows, another schema, flow or seed"
            )
        if work not in (None, then["work"]):
            raise ValueError(
                f"work: the search in {self.folder} was begun with {then['work']:g}, got {work:g}"
            )
        return then["work"]

    def once(self, name: str, do: Callable[[], Step]) -> Finished:
        """Takes a step, which has a name of its own, unless it was taken before.

        Raises:
            ValueError: If its file is damaged.
            OSError: If it cannot be written.
        """
        path = (self.folder or Path()) / f"{name.replace(' ', '-')}.safetensors"
        if self.folder is not None and path.is_file():
            tensors, header = checkpoint.read(path)
            key = checkpoint.METADATA
            return Finished(
                path, checkpoint.metadata_of(path, header, key, dict[str, Any]), tensors
            )
        plain, found = do()
        if self.folder is not None:
            checkpoint.write(path, found, {checkpoint.METADATA: checkpoint.to_json(plain)})
        return Finished(path, plain, found)


@with_config(CLOSED)
class _Record(TypedDict):
    identity: str
    work: Positive


def identity_of(*parts: Any) -> str:
    """A digest of tensors, and of plain values by how they are written."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        plain = not isinstance(part, Tensor)
        digest.update(repr(part if plain else (part.dtype, tuple(part.shape))).encode())
        if not plain:
            digest.update(np.ascontiguousarray(part.numpy()).data)
    return digest.hexdigest()
