"""Orders, generations, degrees and masks: the only place where a mask is made."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import LongTensor, Tensor, nn

__all__ = [
    "Degrees",
    "MadeMasks",
    "check_autoregressive",
    "degrees",
    "generations",
    "made_masks",
    "topological_generations",
    "window_mask",
]

Degrees = Literal["sequential", "random"]


def generations(
    features: int, *, order: Sequence[int] | Tensor | None = None, passes: int | None = None
) -> LongTensor:
    r"""Splits features into the generations that an inverse computes one after the other.

    Feature :math:`i` of rank :math:`r_i` belongs to generation
    :math:`\lfloor r_i / \lceil D / P \rceil \rfloor + 1`, from 1 on.

    Args:
        features: The number of features :math:`D`.
        order: The rank of each feature in the chain; ascending if None.
        passes: The number of generations :math:`P`; fully autoregressive (:math:`D`) if None,
            a coupling if 2.

    Returns:
        The generation of each feature, with shape :math:`(D,)`.

    Raises:
        ValueError: If `order` is not a permutation of the features, or `passes` is below 1.

    Example:
        >>> generations(4, passes=2)
        tensor([1, 1, 2, 2])
        >>> generations(3, order=[2, 0, 1])
        tensor([3, 1, 2])
    """
    if features < 1:
        raise ValueError(f"features: expected at least 1, got {features}")
    if passes is not None and passes < 1:
        raise ValueError(f"passes: expected at least 1, got {passes}")
    ranks = torch.arange(features) if order is None else torch.as_tensor(order).cpu()
    if (
        ranks.shape != (features,)
        or ranks.is_floating_point()
        or not torch.equal(ranks.long().sort().values, torch.arange(features))
    ):
        raise ValueError(
            f"order: expected a permutation of 0..{features - 1}, "
            f"got shape {tuple(ranks.shape)} with values {_shorten(ranks)}"
        )
    size = -(-features // min(passes or features, features))
    return ranks.long() // size + 1  # type: ignore[return-value]


def topological_generations(adjacency: Tensor) -> LongTensor:
    """Sorts the features of a directed acyclic graph into topological generations.

    Args:
        adjacency: Whether feature i depends on feature j, with shape (features, features) and
            nothing on the diagonal.

    Returns:
        The generation of each feature, from 1 on: one more than the last of its parents'.

    Raises:
        ValueError: If the graph has a cycle.

    Example:
        >>> topological_generations(torch.tensor([[0, 0, 0], [1, 0, 0], [1, 0, 0]]))
        tensor([1, 2, 2])
    """
    parents = adjacency.cpu().bool()
    generation = torch.zeros(len(parents), dtype=torch.long)
    for current in range(1, len(parents) + 1):
        waiting = generation == 0
        ready = waiting & ~(parents & waiting).any(dim=1)
        if not ready.any():
            break
        generation[ready] = current
    if (generation == 0).any():
        stuck = (generation == 0).nonzero().flatten()
        raise ValueError(
            f"adjacency: expected a graph without cycles, but features {_shorten(stuck)} "
            "wait for each other"
        )
    return generation  # type: ignore[return-value]


def degrees(
    units: int,
    kinds: int,
    *,
    kind: Degrees = "sequential",
    generator: torch.Generator | None = None,
) -> LongTensor:
    r"""Deals the `kinds` of dependencies out to the units of a hidden layer, sorted.

    Sequential degrees are spread evenly, :math:`m_k = \lfloor k K / H \rfloor`, which gives each
    kind its share as MADE's cycle does. Random degrees are uniform, save that each kind is dealt
    once first when there are units enough, so that no dependency is lost by chance, and the first
    one always.

    Args:
        units: The number of units :math:`H`.
        kinds: The number of kinds :math:`K`.
        kind: How degrees are chosen.
        generator: Where random degrees are drawn from.

    Returns:
        The kind of each unit in 0..K-1, ascending, with shape :math:`(H,)`.

    References:
        MADE (Germain et al., 2015), section 4, https://arxiv.org/abs/1502.03509

    Example:
        >>> degrees(5, 3)
        tensor([0, 0, 1, 1, 2])
    """
    if kind == "sequential":
        return torch.arange(units) * kinds // units  # type: ignore[return-value]
    if kind != "random":
        raise ValueError(f"degrees: expected 'sequential' or 'random', got {kind!r}")
    once = torch.randperm(kinds, generator=generator)[:units]
    if units and not (once == 0).any():
        once[0] = 0  # what reads no unit at all would not see the context either
    rest = torch.randint(kinds, (units - len(once),), generator=generator)
    return torch.cat([once, rest]).sort().values  # type: ignore[return-value]


@dataclass(frozen=True)
class MadeMasks:
    """The masks of a masked multi-layer perceptron.

    Attributes:
        masks: One mask a linear layer, first to last, with shape (outputs, inputs).
        degrees: One tensor a hidden layer: the last generation that each unit may see, ascending.
    """

    masks: tuple[Tensor, ...]
    degrees: tuple[Tensor, ...]


def made_masks(
    adjacency: Tensor,
    hidden_features: Sequence[int],
    *,
    generation: Tensor | None = None,
    kind: Degrees = "sequential",
    widen: bool = True,
    given: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> MadeMasks:
    r"""Makes the masks of an MLP whose outputs depend on inputs where `adjacency` says so.

    Each distinct non-empty row of the adjacency is a kind of dependency. A hidden unit of one kind
    reads the units of the kinds within it, and an output the units of the kinds within its row, so
    that the product of the masks has the adjacency's zeros. For an autoregressive order the kinds
    form a chain: these are MADE's masks, with units sorted by degree.

    Args:
        adjacency: Whether output i may depend on input j, with shape (outputs, inputs).
        hidden_features: The width of each hidden layer.
        generation: The generation of each input, 0 for context, with shape (inputs,). Units are
            sorted by the last generation that they see. If None, by the number of their inputs.
        kind: How degrees are dealt, see :func:`degrees`. Equally wide layers share them.
        widen: A layer narrower than the number of kinds cannot pass on every dependency. If True it
            is widened with a warning, unless kinds form a chain and degrees are random: such a draw
            is meant to miss some nearest predecessors, others in each layer of a flow (0.1% of all
            dependencies for 1,024 units and 3,072 features). If False it keeps its width and some
            dependencies are missing.
        given: The widths as the user gave them, for warnings; `hidden_features` if None.
        generator: Where random degrees are drawn from.

    Raises:
        ValueError: If the adjacency is not a matrix, or a width is below 1.

    References:
        MADE (Germain et al., 2015), equations 9 to 14, https://arxiv.org/abs/1502.03509

    Example:
        >>> made = made_masks(torch.ones(3, 3).tril(-1).bool(), [4])
        >>> made.degrees[0], made.masks[1].int() @ made.masks[0].int()
        (tensor([1, 1, 2, 2]), tensor([[0, 0, 0],
                [2, 0, 0],
                [4, 2, 0]], dtype=torch.int32))
    """
    if adjacency.ndim != 2:
        raise ValueError(f"adjacency: expected a matrix, got shape {tuple(adjacency.shape)}")
    if any(width < 1 for width in hidden_features):
        raise ValueError(f"hidden_features: expected widths >= 1, got {tuple(hidden_features)}")
    adjacency = adjacency.cpu().bool()
    sizes = adjacency.sum(dim=1)
    if generation is None:
        generation = sizes.new_zeros(adjacency.shape[1])
        seen = sizes
    else:
        generation = generation.cpu()
        seen = (adjacency * generation).amax(dim=1) if adjacency.shape[1] else sizes
    kinds, row_kind, kind_degree = _kinds_of_dependency(adjacency, seen, sizes)

    dealt: dict[int, LongTensor] = {}
    for width in dict.fromkeys(hidden_features):
        units = width
        if width < len(kinds) and widen and not (kind == "random" and _is_chain(kinds)):
            units = len(kinds)
            layer = list(given or hidden_features).index(width)
            warnings.warn(
                f"hidden_features[{layer}] = {width} is too narrow for all {len(kinds)} kinds of "
                f"dependency: widened to {len(kinds)} (widen=False keeps the width)",
                stacklevel=2,
            )
        dealt[width] = degrees(units, len(kinds), kind=kind, generator=generator)
    hidden = [dealt[width] for width in hidden_features]
    if not hidden:
        return MadeMasks((adjacency,), ())

    within = _subset_matrix(kinds)
    empty = torch.zeros(1, len(kinds), dtype=torch.bool)
    out = torch.cat([within, empty])[row_kind]  # row_kind is -1 for an empty row
    masks = [kinds[hidden[0]]]
    masks += [within[after][:, before] for before, after in pairwise(hidden)]
    masks += [out[:, hidden[-1]]]
    return MadeMasks(tuple(masks), tuple(kind_degree[units] for units in hidden))


def window_mask(outputs: Tensor, inputs: Tensor, kernel_size: int) -> Tensor:
    r"""The mask of a convolution whose outputs at a pixel depend on what comes before it.

    Pixels are in raster order, row by row, and the channels of a pixel in that of their degrees: an
    output of degree m sees all channels of the pixels before its own, and of its own those of
    degrees up to m. Nothing below a pixel comes before it, so that the window ends with its row.

    Args:
        outputs: The degree of each output channel, with shape (C',).
        inputs: The degree of each input channel, with shape (C,).
        kernel_size: The side k of the window, odd.

    Returns:
        Which weights are kept, with shape (C', C, (k + 1) / 2, k).

    Raises:
        ValueError: If the side is not odd and positive.

    References:
        Pixel Recurrent Neural Networks (van den Oord et al., 2016), section 3.4

    Example:
        >>> window_mask(torch.tensor([0]), torch.tensor([1]), 3).int()[0, 0]
        tensor([[1, 1, 1],
                [1, 0, 0]], dtype=torch.int32)
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size: expected an odd number from 1 on, got {kernel_size}")
    middle = kernel_size // 2
    mask = torch.ones(len(outputs), len(inputs), middle + 1, kernel_size, dtype=torch.bool)
    mask[:, :, middle, middle + 1 :] = False
    mask[:, :, middle, middle] = outputs[:, None] >= inputs
    return mask


def _kinds_of_dependency(
    adjacency: Tensor, seen: Tensor, sizes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Finds the distinct non-empty rows, sorted by degree, and the kind of each row (-1: empty)."""
    packed = np.ascontiguousarray(np.packbits(adjacency.numpy(), axis=1))
    if packed.shape[1] == 0:
        packed = np.zeros((len(packed), 1), np.uint8)
    rows = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    first = first[np.lexsort((first, sizes[first].numpy(), seen[first].numpy()))]
    rank = np.empty(len(first), np.int64)
    rank[inverse[first]] = np.arange(len(first))
    kinds = adjacency[first]
    kind_of_row = torch.from_numpy(rank[inverse])
    if len(first) > 1 and not kinds[0].any():
        return kinds[1:], kind_of_row - 1, seen[first][1:]
    return kinds, kind_of_row, seen[first]


def _is_chain(kinds: Tensor) -> bool:
    """Whether each kind lies within the next, as of any order."""
    return not (kinds[:-1] & ~kinds[1:]).any()


def _subset_matrix(kinds: Tensor) -> Tensor:
    """Whether kind j lies within kind i."""
    if _is_chain(kinds):  # no product needed
        return torch.ones(len(kinds), len(kinds), dtype=torch.bool).tril()
    sets = kinds.float()
    return sets @ sets.T == sets.sum(dim=1)


def check_autoregressive(
    conditioner: nn.Module, adjacency: Tensor, *, rows: int = 4, seed: int = 0
) -> None:
    """Proves by the Jacobian at random points that a network depends on what it may, no more.

    Args:
        conditioner: A network from (batch, inputs) to (batch, outputs).
        adjacency: Whether output i may depend on input j, with shape (outputs, inputs).
        rows: The number of random points.
        seed: The seed of the points.

    Raises:
        ValueError: If some output depends on an input that the adjacency forbids.

    Example:
        >>> lower = torch.ones(3, 3).tril(-1).bool()
        >>> check_autoregressive(torch.nn.Linear(3, 3), lower)
        Traceback (most recent call last):
        ...
        ValueError: conditioner: output 0 depends on input 0, which the adjacency forbids
    """
    parameter = next(conditioner.parameters(), torch.zeros(()))
    points = torch.randn(rows, adjacency.shape[1], generator=torch.Generator().manual_seed(seed))
    points = points.to(parameter).requires_grad_()
    with torch.enable_grad():
        outputs = conditioner(points)
        if outputs.shape != (rows, adjacency.shape[0]):
            raise ValueError(
                f"conditioner: expected outputs of shape {(rows, adjacency.shape[0])}, "
                f"got {tuple(outputs.shape)}"
            )
        for i, output in enumerate(outputs.unbind(dim=1)):
            (gradient,) = torch.autograd.grad(
                output.sum(), points, retain_graph=True, materialize_grads=True
            )
            forbidden = (gradient != 0).any(dim=0).cpu() & ~adjacency[i].cpu().bool()
            if forbidden.any():
                j = int(forbidden.nonzero()[0])
                raise ValueError(
                    f"conditioner: output {i} depends on input {j}, which the adjacency forbids"
                )


def _shorten(values: Tensor) -> str:
    listed = values.tolist()
    return str(listed) if len(listed) <= 10 else f"{str(listed[:10])[:-1]}, ...]"
