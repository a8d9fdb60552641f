"""Models that are built with flows: the variational autoencoder."""

from .vae import VAE, ConditionalNormal, LatentVariable

__all__ = ["VAE", "ConditionalNormal", "LatentVariable"]
