"""The variational autoencoder, whose prior and posterior may be flows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import softplus

from maskedflow.distributions import Density, DiagNormal
from maskedflow.distributions.base import Shape, draw, draw_and_log_prob, log_density
from maskedflow.distributions.elementwise import Elementwise
from maskedflow.flows import LazyDistribution
from maskedflow.flows.flow import check_context, check_sizes, standard_normal, unchecked
from maskedflow.nn import MLP, Linear
from maskedflow.transforms import check_features

#: Most numbers that a decoder puts out at once when importance is weighed: 32 MB in float64.
CHUNK = 2**22
#: Log-scales are kept in [-10, 10], as those of the affine map are: no exponential overflows.
LOG_SCALE = 10.0


class _Bernoulli(Elementwise):
    """Independent features that are 0 or 1, given their log-odds. Draws take a generator."""

    has_rsample = False
    logits: Tensor

    def __init__(self, logits: Tensor) -> None:
        super().__init__(1, logits=logits)

    @property
    def mean(self) -> Tensor:
        """The probabilities of a 1."""
        return self.logits.sigmoid()

    def log_prob(self, value: Tensor) -> Tensor:
        if not bool(((value == 0) | (value == 1)).all()):
            wrong = value[(value != 0) & (value != 1)][0].item()
            raise ValueError(f"x: a Bernoulli likelihood expects zeros and ones, got {wrong:g}")
        return -softplus((1 - 2 * value) * self.logits).sum(dim=-1)

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            return torch.bernoulli(
                self.mean.expand(self._extended(sample_shape)), generator=generator
            )


def _gaussian(output: Tensor) -> DiagNormal:
    """The normal distribution of D features whose means and log-scales are side by side."""
    loc, log_scale = output.chunk(2, dim=-1)
    return DiagNormal(loc, log_scale.clamp(-LOG_SCALE, LOG_SCALE).exp())


#: What a decoder may put out, by name: how many numbers a feature takes, and what makes p(x | z).
_LIKELIHOODS: dict[str, tuple[int, Callable[[Tensor], Distribution]]] = {
    "bernoulli": (1, _Bernoulli),
    "gaussian": (2, _gaussian),
}


class ConditionalNormal(LazyDistribution):
    r"""A normal distribution whose means and log-scales are affine in the context.

    .. math:: z \sim \mathcal{N}(W c + b, \operatorname{diag} e^{2 (V c + d)})

    The posterior of a plain :class:`VAE`, and what its IAF starts from, as the latter's `base`.

    Args:
        features: The number of features.
        context: The number of context features.

    Example:
        >>> ConditionalNormal(2, context=4)(torch.zeros(5, 4)).batch_shape
        torch.Size([5])
    """

    def __init__(
        self, features: int, context: int, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.context = context
        self.hyper = Linear(context, 2 * features, generator=generator)

    def forward(self, c: Tensor | None = None) -> DiagNormal:
        """Makes the distribution for the context `c`, with shape (*, context)."""
        check_context(c, self.context)
        return _gaussian(self.hyper(c))


class VAE(LazyDistribution):
    r"""A variational autoencoder: data x that a latent z explains.

    .. math:: p(x) = \int p(x \mid z) \, p(z) \, dz, \qquad
        \log p(x) \ge \mathrm{E}_{q(z \mid x)} [\log p(x \mid z) + \log p(z) - \log q(z \mid x)]

    Any flow can be the prior p(z), and any conditional flow the posterior q(z | x), which is given
    the output of the encoder as its context. A MAF prior is scored at one pass a transform, an IAF
    posterior drawn *and* scored at one pass a transform. Sweeps make the other directions about as
    cheap: a MAF posterior, an IAF prior, samples of a MAF prior.

    `vae()` is a distribution, so that :func:`maskedflow.training.fit` trains it: its `log_prob` is
    the bound above with one draw of z. What `fit` calls an NLL is then an upper bound of it, and
    noisy.

    Args:
        features: The number of features D of the data.
        latent: The number of features of z.
        prior: The lazy distribution p(z); N(0, I) if None.
        posterior: The lazy distribution q(z | x), with the encoder's output as context; a
            :class:`ConditionalNormal` if None.
        encoder: The network from x, with shape (*, D), to the context of the posterior; an MLP with
            `hidden_features`, whose last layer is the output, if None.
        decoder: The network from z to what the likelihood takes: D log-odds, or D means and D
            log-scales; an MLP with `hidden_features` in reverse if None.
        likelihood: "bernoulli", for data of zeros and ones, or "gaussian".
        hidden_features: The width of each hidden layer.

    Raises:
        ValueError: If `likelihood` is unknown, a size is below 1, or the prior is of another size.

    References:
        | Auto-Encoding Variational Bayes (Kingma and Welling, 2014), equation 3
        | https://arxiv.org/abs/1312.6114
        | Inverse Autoregressive Flow (Kingma et al., 2016), section 3
        | https://arxiv.org/abs/1606.04934
        | Variational Lossy Autoencoder (Chen et al., 2017), section 3.2
        | https://arxiv.org/abs/1611.02731

    Example:
        >>> from maskedflow.flows import IAF, MAF
        >>> base = ConditionalNormal(8, context=64)
        >>> posterior = IAF(8, context=64, transforms=2, base=base)
        >>> vae = VAE(784, 8, prior=MAF(8), posterior=posterior, hidden_features=(64,))
        >>> x = vae.sample(5)
        >>> vae.elbo(x).shape, vae.log_likelihood(x, samples=10).shape
        (torch.Size([5]), torch.Size([5]))
    """

    def __init__(
        self,
        features: int,
        latent: int,
        *,
        prior: LazyDistribution | None = None,
        posterior: LazyDistribution | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
        hidden_features: Sequence[int] = (256, 256),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_sizes(features=features, latent=latent)
        if likelihood not in _LIKELIHOODS:
            known = ", ".join(_LIKELIHOODS)
            raise ValueError(f"likelihood: expected one of {known}, got {likelihood!r}")
        if not hidden_features:
            raise ValueError("hidden_features: expected at least one layer, got none")
        prior = standard_normal(latent) if prior is None else prior
        if (shape := tuple(prior().event_shape)) != (latent,):
            raise ValueError(f"prior: expected a distribution of shape {(latent,)}, got {shape}")
        self.features, self.latent = features, latent
        numbers, self.likelihood = _LIKELIHOODS[likelihood]
        *inner, context = hidden_features
        if encoder is None:
            encoder = nn.Sequential(MLP(features, context, inner, generator=generator), nn.ReLU())
        if posterior is None:
            posterior = ConditionalNormal(latent, context, generator=generator)
        if decoder is None:
            outward = hidden_features[::-1]
            decoder = MLP(latent, numbers * features, outward, generator=generator)
        self.prior, self.posterior = prior, posterior
        self.encoder, self.decoder = encoder, decoder

    def extra_repr(self) -> str:
        return f"features={self.features}, latent={self.latent}"

    def forward(self, c: Tensor | None = None) -> LatentVariable:
        """Makes the distribution of x, whose `log_prob` is the :meth:`elbo` of one draw."""
        check_context(c, 0)
        return LatentVariable(self).made_by(self, unchecked)

    def encode(self, x: Tensor) -> Distribution:
        """Makes the posterior q(z | x) of x, with shape (*, D)."""
        check_features("x", x, self.features)
        return cast(Distribution, self.posterior(self.encoder(x)))

    def decode(self, z: Tensor) -> Distribution:
        """Makes the likelihood p(x | z) of z, with shape (*, latent)."""
        return self.likelihood(self.decoder(z))

    def elbo(self, x: Tensor, n: int = 1, generator: torch.Generator | None = None) -> Tensor:
        r"""Estimates the evidence lower bound of each row, in nats.

        .. math:: \frac{1}{n} \sum_j \log w_j, \quad w_j = \frac{p(x \mid z_j) \, p(z_j)}
            {q(z_j \mid x)}, \quad z_j \sim q(z \mid x)

        The data have shape (*, D), and the bounds, which have gradients, shape (*,). It costs one
        pass of the encoder and n of the decoder and of what the flows' directions cost.

        Raises:
            ValueError: If x is of another size, or not zeros and ones for a Bernoulli likelihood.
        """
        if n < 1:
            raise ValueError(f"n: expected at least 1 draw, got {n}")
        return self._log_weights(self.encode(x), x, n, generator).mean(dim=0)

    @torch.no_grad()
    def log_likelihood(
        self, x: Tensor, samples: int = 100, generator: torch.Generator | None = None
    ) -> Tensor:
        r"""Estimates the log-likelihood of each row by importance sampling, in nats.

        .. math:: \log \frac{1}{K} \sum_{k=1}^K w_k, \quad w_k = \frac{p(x \mid z_k) \, p(z_k)}
            {q(z_k \mid x)}, \quad z_k \sim q(z \mid x)

        Its expectation is a lower bound that grows with K, from the ELBO at K = 1 to
        :math:`\log p(x)`. The sum is made in pieces, so memory does not grow with K, which is
        `samples`. The data have shape (*, D), and the estimates, without gradients, shape (*,).

        References:
            Importance Weighted Autoencoders (Burda et al., 2016), equation 8
            https://arxiv.org/abs/1509.00519
        """
        if samples < 1:
            raise ValueError(f"samples: expected at least 1 draw, got {samples}")
        check_features("x", x, self.features)
        pairs = max(1, CHUNK // self.features)
        at_once = min(samples, pairs)
        parts = []
        for rows in x.reshape(-1, self.features).split(max(1, pairs // at_once)):
            posterior = self.encode(rows)
            total = torch.full(rows.shape[:1], -math.inf, dtype=x.dtype, device=x.device)
            for start in range(0, samples, at_once):
                n = min(at_once, samples - start)
                part = self._log_weights(posterior, rows, n, generator).logsumexp(dim=0)
                total = torch.logaddexp(total, part)
            parts.append(total - math.log(samples))
        return torch.cat(parts).view(x.shape[:-1])

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws z from the prior, and x, with shape (n, D), given z."""
        return draw(self.decode(draw(self.prior(), (n,), generator)), (), generator)

    def _log_weights(
        self, posterior: Distribution, x: Tensor, n: int, generator: torch.Generator | None
    ) -> Tensor:
        """The log-weights of n draws, with shape (n, *)."""
        z, log_q = draw_and_log_prob(posterior, (n,), generator)
        log_p = self.decode(z).log_prob(x) + log_density(self.prior(), z)
        return log_p - log_q


class LatentVariable(Density):
    """The distribution of a VAE's data. Its `log_prob` is a lower bound, from one draw of z."""

    def __init__(self, vae: VAE) -> None:
        super().__init__((), (vae.features,))
        self.vae = vae

    def __repr__(self) -> str:
        return f"LatentVariable(features: {self.vae.features}, latent: {self.vae.latent})"

    def density(self, value: Tensor) -> Tensor:
        return self.vae.elbo(value)

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws data, with shape (*sample_shape, D)."""
        n = math.prod(sample_shape)
        return self.vae.sample(n, generator).view(*sample_shape, self.vae.features)
