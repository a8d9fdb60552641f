"""A run on disk: what was asked for, the density that was fitted, and what came of it.

A run of a flow is one folder::

    <name>/config.toml                    everything needed to build the flow again
           checkpoints/{best,latest}.safetensors
           logs/training.log, logs/metrics.jsonl
           samples/<name>_samples.png
           results_summary.txt
           report.html

and so is one of a search for the density of a table::

    <name>/config.toml                    what was asked for
           schema.toml                    what is known of the columns
           estimator.safetensors          the density
           samples/<name>_samples.csv, or .parquet
           results_summary.txt
           report.html

:func:`load_run` opens both, :func:`train_run` and :func:`search_run` make them, and
:func:`evaluate_run` measures them.
"""

from .build import build_flow, describe
from .comparison import Compared, Likelihood, compare_runs
from .config import DataConfig, FlowConfig, RunConfig, SearchConfig
from .density import Density, FlowDensity
from .evaluation import Evaluation, Mean, evaluate_run
from .facts import told_distinct
from .fit import search_run, train_run, write_run
from .level import level_of
from .run import Run, load_run, open_data
from .sampling import draw_batches, sample_batches, sample_given_run, sample_run
from .scorer import Scorer
from .scoring import Scores, score_batches, score_run, score_source
from .series import forecast, joined, score_series
from .summary import results_table, summary

__all__ = [
    "Compared",
    "DataConfig",
    "Density",
    "Evaluation",
    "FlowConfig",
    "FlowDensity",
    "Likelihood",
    "Mean",
    "Run",
    "RunConfig",
    "Scorer",
    "Scores",
    "SearchConfig",
    "build_flow",
    "compare_runs",
    "describe",
    "draw_batches",
    "evaluate_run",
    "forecast",
    "joined",
    "level_of",
    "load_run",
    "open_data",
    "results_table",
    "sample_batches",
    "sample_given_run",
    "sample_run",
    "score_batches",
    "score_run",
    "score_series",
    "score_source",
    "search_run",
    "summary",
    "told_distinct",
    "train_run",
    "write_run",
]
