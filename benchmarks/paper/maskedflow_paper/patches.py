"""The symmetries of BSDS300's patches."""

import torch
from torch import Tensor

from maskedflow.data.benchmarks import PATCH


def patch_symmetries() -> Tensor:
    """What turns and mirrors a patch, as matrices of all its pixels but the last, (8, 63, 63).

    A patch adds up to zero, so that the last pixel is known.

    Example:
        >>> symmetries = patch_symmetries()
        >>> bool((symmetries[0] == torch.eye(63)).all())
        True
        >>> symmetries.det().abs().round()
        tensor([1., 1., 1., 1., 1., 1., 1., 1.])
    """
    patch = torch.arange(PATCH * PATCH).view(PATCH, PATCH)
    turned = [torch.rot90(one, turns) for one in (patch, patch.T) for turns in range(4)]
    whole = torch.cat([torch.eye(PATCH * PATCH - 1), -torch.ones(1, PATCH * PATCH - 1)])
    return torch.stack([whole[one.flatten()[:-1]] for one in turned])
