"""The inverse of an autoregressive transform of images, pixel after pixel, at about one pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from maskedflow.nn import MaskedConvNet, MaskedConvolution

Solve = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class _Window:
    """A masked convolution at one pixel after the other: what is around it, and what is at it."""

    def __init__(self, layer: MaskedConvolution, batch: int, height: int, width: int) -> None:
        self.bias, edge = layer.bias, layer.edge
        window = layer.window.movedim(1, -1)  # (outputs, rows, columns, inputs)
        self.at = window[:, edge, edge].T
        around = window.clone()
        around[:, edge, edge] = 0
        self.around = around.flatten(1).T.contiguous()
        self.rows, self.columns = window.shape[1:3]
        self.edge = edge
        # Channels last: the window of a pixel is a few stretches of memory.
        self.seen = self.bias.new_zeros(batch, height + edge, width + 2 * edge, window.shape[-1])

    def sum_around(self, i: int, j: int) -> Tensor:
        """The sum at a pixel, save for what the pixel itself adds."""
        if self.columns == 1:
            return self.bias
        window = self.seen[:, i : i + self.rows, j : j + self.columns]
        return torch.addmm(self.bias, window.flatten(1), self.around)

    def keep(self, i: int, j: int, value: Tensor) -> None:
        """Keeps the inputs of a pixel that is done, (N, inputs)."""
        self.seen[:, i + self.edge, j + self.edge] = value


def invert_raster(net: MaskedConvNet, solve: Solve, z: Tensor, c: Tensor | None = None) -> Tensor:
    r"""Inverts z = f(x) of images, where the map of each channel of a pixel is given by a network.

    Of each pixel a network's layers need what they saw at the pixels before it, which is kept, so
    that each weight is used once a pixel, as in a pass. Only layers within a pixel run once more
    for each of its channels.

    Args:
        net: The network.
        solve: Gives x of a channel, with shape (N,), given the channel's number, its parameters,
            with shape (N, P), the direct connections' number, with shape (N,), and z.
        z: The latents, with shape (N, C, H, W).
        c: The context, with shape (N, context) or (context,).

    Returns:
        The images as the network reads them, with the shape of z.
    """
    batch, channels, height, width = z.shape
    act, pairs = net.activation, net.pairs
    lift, last = (_Window(layer, batch, 0, 0) for layer in (net.lift, net.last))
    first, direct, *blocks = (
        _Window(layer, batch, height, width)
        for layer in (net.first, net.direct, *(around for around, _ in pairs))
    )
    within = [_Window(layer, batch, 0, 0) for _, layer in pairs]
    steered = 0 if net.steer is None else net.steer(c)
    latents = z.permute(2, 3, 1, 0).contiguous()
    images = torch.empty_like(latents)
    for i in range(height):
        for j in range(width):
            sums = [first.sum_around(i, j) + steered]
            sums += [block.sum_around(i, j) for block in blocks]
            means = direct.sum_around(i, j)
            pixel = z.new_zeros(batch, channels + 1)
            pixel[:, -1] = 1
            for channel in range(channels + 1):
                lifted = act(torch.addmm(lift.bias, pixel, lift.at))
                h = torch.addmm(sums[0], lifted, first.at)
                kept = []
                for around, inner, total in zip(blocks, within, sums[1:], strict=True):
                    kept.append(act(h))
                    t = act(torch.addmm(total, kept[-1], around.at))
                    h = h + torch.addmm(inner.bias, t, inner.at)
                if channel == channels:
                    break
                phi = torch.addmm(last.bias, act(h), last.at)
                phi = phi.unflatten(1, (channels, -1))[:, channel]
                mean = means[..., channel] + pixel @ direct.at[:, channel]
                found = solve(channel, phi, mean, latents[i, j, channel])
                images[i, j, channel] = pixel[:, channel] = found
            first.keep(i, j, lifted)
            direct.keep(i, j, pixel)
            for block, value in zip(blocks, kept, strict=True):
                block.keep(i, j, value)
    return images.permute(3, 2, 0, 1)
