"""The training curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

__all__ = ["training_curve"]


def training_curve(axes: Axes, train: Sequence[float], validation: Sequence[float]) -> None:
    """Draw the NLL of training and validation rows over the epochs, and mark the best epoch.

    The steep fall of the first epochs is cut off at the top, or it would flatten all that follows.

    Args:
        axes: Where to draw.
        train: NLL in nats per example, one an epoch.
        validation: Likewise.

    Raises:
        ValueError: If the two lengths differ or are zero.
    """
    if not len(train) == len(validation) > 0:
        raise ValueError(
            f"train and validation must be as long as each other and not empty,"
            f" not {len(train)} and {len(validation)}"
        )
    epochs = np.arange(1, len(train) + 1)
    best = int(np.nanargmin(validation))
    marker = "o" if len(epochs) < 3 else None
    label = f"validation, best {validation[best]:.5g}"
    axes.plot(epochs, train, color="0.6", lw=1, marker=marker, label="training")
    axes.plot(epochs, validation, color="0.1", lw=1.2, marker=marker, label=label)
    axes.plot(epochs[best], validation[best], "o", color="0.1", ms=5)
    fall = max(len(epochs) // 10, 1) if len(epochs) > 2 else 0
    settled = np.concatenate([train[fall:], validation[fall:]])
    low, high = np.nanmin(settled), np.nanmax(settled)
    margin = 0.1 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel("epoch", fontsize=8)
    axes.set_ylabel("NLL (nats)", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(fontsize=8, frameon=False)
