"""Training: fit a flow, calibrate its batch norms, evaluate it, save and load it."""

from .calibration import calibrate
from .checkpoint import load, save
from .config import TrainConfig
from .evaluation import evaluate
from .history import EpochRecord, History
from .loop import NonFiniteError, fit

__all__ = [
    "EpochRecord",
    "History",
    "NonFiniteError",
    "TrainConfig",
    "calibrate",
    "evaluate",
    "fit",
    "load",
    "save",
]
