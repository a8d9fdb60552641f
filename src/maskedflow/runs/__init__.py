"""A training run on disk: what was asked for, the weights, the log, and what came of it.

A run is one folder::

    <name>/config.toml                    everything needed to build the flow again
           checkpoints/{best,latest}.safetensors
           logs/training.log, logs/metrics.jsonl
           samples/<name>_samples.png
           results_summary.txt
           report.html

:func:`load_run` opens one, :func:`train_run` makes one, :func:`evaluate_run` measures one.
"""

from .build import build_flow, describe
from .comparison import Compared, compare_runs
from .config import DataConfig, FlowConfig, RunConfig
from .evaluation import Evaluation, Mean, evaluate_run, front_of, preprocessed
from .run import Run, load_run, open_data, rows_of, train_run
from .sampling import sample_batches
from .scoring import Scores, score_batches, score_run, score_source
from .series import forecast, joined, score_series
from .summary import facts, results_table, summary, told_distinct

__all__ = [
    "Compared",
    "DataConfig",
    "Evaluation",
    "FlowConfig",
    "Mean",
    "Run",
    "RunConfig",
    "Scores",
    "build_flow",
    "compare_runs",
    "describe",
    "evaluate_run",
    "facts",
    "forecast",
    "front_of",
    "joined",
    "load_run",
    "open_data",
    "preprocessed",
    "results_table",
    "rows_of",
    "sample_batches",
    "score_batches",
    "score_run",
    "score_series",
    "score_source",
    "summary",
    "told_distinct",
    "train_run",
]
