"""Tables as they are, in the manner of scikit-learn, and runs on them."""

from .comparison import compare_any
from .config import TableConfig
from .estimator import DensityEstimator
from .evaluation import (
    TableEvaluation,
    evaluate_table,
    table_results,
    table_summary,
    write_table_summary,
)
from .mixed import MixedTable, open_mixed, tell_schema
from .queries import ConditionalScore
from .report import table_report
from .run import TableRun, fit_table, load_run, write_run
from .stream import read_context, sample_table, score_table

__all__ = [
    "ConditionalScore",
    "DensityEstimator",
    "MixedTable",
    "TableConfig",
    "TableEvaluation",
    "TableRun",
    "compare_any",
    "evaluate_table",
    "fit_table",
    "load_run",
    "open_mixed",
    "read_context",
    "sample_table",
    "score_table",
    "table_report",
    "table_results",
    "table_summary",
    "tell_schema",
    "write_run",
    "write_table_summary",
]
