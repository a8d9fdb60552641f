"""Training: fit a flow to data or a log-density, start, calibrate, evaluate, save and load it."""

from .calibration import calibrate
from .checkpoint import load, save
from .config import TrainConfig
from .device import device_of
from .distributed import Ranks
from .evaluation import evaluate
from .history import EpochRecord, History
from .loop import NonFiniteError, fit
from .posterior import (
    ImportanceSample,
    VariationalConfig,
    VariationalHistory,
    fit_posterior,
    importance_sample,
)
from .start import start_at

__all__ = [
    "EpochRecord",
    "History",
    "ImportanceSample",
    "NonFiniteError",
    "Ranks",
    "TrainConfig",
    "VariationalConfig",
    "VariationalHistory",
    "calibrate",
    "device_of",
    "evaluate",
    "fit",
    "fit_posterior",
    "importance_sample",
    "load",
    "save",
    "start_at",
]
