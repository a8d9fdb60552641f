"""Flows as programs that run without this library: files of torch.export and of ONNX."""

from __future__ import annotations

import copy
import importlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from maskedflow.distributions import NormalizingFlow
from maskedflow.distributions.base import draw, log_density
from maskedflow.files import atomic
from maskedflow.flows import LazyDistribution
from maskedflow.flows.flow import is_standard_normal
from maskedflow.runs import FlowDensity, Run, load_run
from maskedflow.transforms import call_and_ladj
from maskedflow.transforms.base import sum_rightmost

from .operators import MADE_OF_OTHERS

__all__ = ["export", "latents"]

ROWS = 3
"""The rows of the batch that a program is traced with; it takes any number."""


class _LogProb(nn.Module):
    """Rows, and contexts, to log-densities."""

    inputs, outputs = ["x", "c"], ["log_prob"]

    def __init__(self, flow: LazyDistribution) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        log_prob: Tensor = self.flow(c).log_prob(x)
        return log_prob


class _Sample(nn.Module):
    """Latents, and contexts, to rows and their log-densities."""

    inputs, outputs = ["z", "c"], ["x", "log_prob"]

    def __init__(self, flow: LazyDistribution) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _image(self.flow(c), z)


def export(
    flow: LazyDistribution | Run | str | os.PathLike[str],
    path: str | os.PathLike[str],
    what: Literal["log_prob", "sample"] = "log_prob",
    *,
    context: int | None = None,
) -> None:
    r"""Writes a flow as a program, in the data's own units, with its preprocessing and embedding.

    - "log_prob" takes rows x, with shape (n, features), and gives their log-densities in nats, with
      shape (n,).
    - "sample" takes latents z, with shape (n, features), and gives the rows :math:`x = f^{-1}(z)`,
      and their log-densities. The latents are N(0, I) unless the base is another one, whose draws
      they are; see :func:`latents`. An autoregressive transform is inverted in one sweep over its
      network, in steps of narrow products, and not by a pass for each feature.

    Of a conditional flow both take the contexts c, with shape (n, context), as second input. The
    number of rows is free, and numbers are in the flow's own precision.

    Programs take any input for good: nothing is checked, and a row so far out that the density is
    smaller than any number is not computed again in double precision, see
    :class:`maskedflow.distributions.Density`.

    Args:
        flow: A flow, or a run of one, or its folder.
        path: The file, whose suffix is the format: `.pt2` for :func:`torch.export.load`, `.onnx`
            for any runtime of that, for which `pip install maskedflow[onnx]`. It holds tensors and
            operations, no code. Its metadata are `what`, what `latent` is, and the names of a run's
            `columns` and `context_columns`, as JSON.
        what: What the program computes.
        context: The number of context features, if an embedding hides it.

    Raises:
        ImportError: If the file is ONNX, and the package onnx or onnxscript is not installed.
        TypeError: If it is no flow of rows.
        ValueError: If the suffix, or `what`, is another one, or the flow has no such program: no
            operators for it, or roots that are searched for.

    Example:
        >>> import tempfile
        >>> from maskedflow.flows import MAF
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(MAF(2, transforms=1), f"{folder}/flow.pt2", what="sample")
        ...     program = torch.export.load(f"{folder}/flow.pt2").module()
        >>> x, log_prob = program(torch.randn(5, 2))
        >>> x.shape, log_prob.shape
        (torch.Size([5, 2]), torch.Size([5]))
    """
    path = Path(path)
    if what not in ("log_prob", "sample"):
        raise ValueError(f"what: expected 'log_prob' or 'sample', got {what!r}")
    if path.suffix not in (".pt2", ".onnx"):
        raise ValueError(f"path: expected a name that ends in .pt2 or .onnx, got {path.name!r}")
    module, names = _flow_of(flow)
    module = copy.deepcopy(module).eval().requires_grad_(False)
    for part in (*module.parameters(), *module.buffers()):
        part.data = part.data.clone()  # a file warns of tensors that are parts of others
    model = _LogProb(module) if what == "log_prob" else _Sample(module)
    if what == "sample":
        names["latent"] = _latent(module)
    if context is None:
        context = len(names.get("context_columns", ())) or _context_of(module)
    inputs = _inputs(module, context)
    try:
        rows = torch.export.Dim("rows", min=1)
        program = torch.export.export(model, inputs, dynamic_shapes=[{0: rows}] * len(inputs))
    except NotImplementedError as error:
        raise ValueError(f"flow: {what} has no program: {error}") from None
    if path.suffix == ".onnx":
        _require_onnx()
    facts = {"what": what, **names}
    with atomic(path) as beside:
        if path.suffix == ".onnx":
            _write_onnx(program, model, beside, facts)
        else:
            # torch looks at the suffix of the name.
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                whole = Path(folder) / path.name
                torch.export.save(
                    program, whole, extra_files={"maskedflow.json": json.dumps(facts)}
                )
                os.replace(whole, beside)


def latents(
    flow: LazyDistribution | Run | str | os.PathLike[str],
    n: int,
    c: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws what an exported sampler takes: N(0, I), or the draws of another base.

    Args:
        flow: What was exported.
        n: The number of rows.
        c: Their contexts, with shape (n, context), if there are some.
        generator: Where the draws come from.

    Returns:
        The latents, with shape (n, features).

    Raises:
        ValueError: If there are other than n contexts.

    Example:
        >>> from maskedflow.flows import MAF
        >>> latents(MAF(2), 5).shape
        torch.Size([5, 2])
    """
    if c is not None and c.shape[:-1] != (n,):
        raise ValueError(f"c: expected shape ({n}, context), got {tuple(c.shape)}")
    distribution: Distribution = _flow_of(flow)[0](c)
    while isinstance(distribution, NormalizingFlow):
        distribution = distribution.base
    with torch.no_grad():
        return draw(distribution, (n,) if c is None else (), generator)


def _image(distribution: Distribution, z: Tensor) -> tuple[Tensor, Tensor]:
    """What becomes of latents, whose flow may have a flow for its base, and the log-densities."""
    if not isinstance(distribution, NormalizingFlow):
        return z, log_density(distribution, z)
    z, log_prob = _image(distribution.base, z)
    x, ladj = call_and_ladj(distribution.transform.inv, z)
    return x, log_prob - sum_rightmost(ladj, ladj.ndim - log_prob.ndim)


def _flow_of(flow: Any) -> tuple[LazyDistribution, dict[str, Any]]:
    """The flow, and the names of a run's columns."""
    names: dict[str, Any] = {}
    if isinstance(flow, str | os.PathLike):
        flow = load_run(Path(flow))
    if isinstance(flow, Run):
        if not isinstance(flow.density, FlowDensity):
            raise TypeError(f"flow: expected a run of a flow, {flow.name} is one of a search")
        if flow.config.data.time is not None:
            raise TypeError(f"flow: expected a flow of rows, {flow.name} is one of a time series")
        names = {"columns": flow.columns, "context_columns": flow.context_columns}
        flow = flow.flow
    if not isinstance(flow, LazyDistribution):
        raise TypeError(f"flow: expected a flow of rows, got a {type(flow).__name__}")
    return flow, names


def _latent(flow: nn.Module) -> str:
    """What latents are: "normal", or the name of the base."""
    base = getattr(flow, "base", None)
    if isinstance(base, nn.Module):
        return "normal" if is_standard_normal(base) else _latent(base)
    return getattr(getattr(flow, "f", type(flow)), "__name__", "base")


def _context_of(flow: nn.Module) -> int:
    """The number of context features that modules of a flow were made for."""
    if getattr(flow, "embedding", None) is not None:
        raise ValueError("context: expected the number of context features, which are embedded")
    found = [getattr(module, "context", 0) for module in flow.modules()]
    return max(number for number in found if isinstance(number, int))


def _inputs(flow: LazyDistribution, context: int) -> tuple[Tensor, ...]:
    """A batch to trace with."""
    like = next(part for part in flow.state_dict().values() if part.is_floating_point())
    c = like.new_zeros(ROWS, context) if context else None
    with torch.no_grad():
        x = like.new_zeros(ROWS, *flow(c).event_shape)
    return (x,) if c is None else (x, c)


def _require_onnx() -> None:
    for name in ("onnx", "onnxscript"):  # torch's exporter imports both
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            raise ImportError(f"{name} is not installed: pip install maskedflow[onnx]") from None


def _write_onnx(
    program: torch.export.ExportedProgram,
    model: _LogProb | _Sample,
    path: Path,
    facts: dict[str, Any],
) -> None:
    try:
        written = torch.onnx.export(
            program.run_decompositions(MADE_OF_OTHERS),
            input_names=model.inputs[: len(program.graph_signature.user_inputs)],
            output_names=model.outputs,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        lacking = re.search(r"target=torch\.ops\.([\w.]+)\.\w+\]", f"{error}{error.__cause__}")
        if lacking is None:
            raise
        name = lacking[1]
        raise ValueError(f"flow: {facts['what']} has no program: ONNX lacks {name}") from None
    assert written is not None
    written.model.metadata_props.update(
        {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()}
    )
    written.save(path)
