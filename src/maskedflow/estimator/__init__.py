"""Tables as they are, in the manner of scikit-learn, and runs on them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comparison import compare_any
    from .config import TableConfig
    from .estimator import DensityEstimator
    from .evaluation import (
        TableEvaluation,
        evaluate_table,
        table_results,
        table_summary,
    )
    from .mixed import MixedTable, open_mixed, tell_schema
    from .opening import load_run
    from .queries import ConditionalScore
    from .report import table_report
    from .run import TableRun, fit_table, write_run
    from .stream import read_context, sample_table, score_table

#: Where names are, imported when first used: to open a run of a flow takes no scikit-learn.
_LAZY = {
    "ConditionalScore": "queries",
    "DensityEstimator": "estimator",
    "MixedTable": "mixed",
    "TableConfig": "config",
    "TableEvaluation": "evaluation",
    "TableRun": "run",
    "compare_any": "comparison",
    "evaluate_table": "evaluation",
    "fit_table": "run",
    "load_run": "opening",
    "open_mixed": "mixed",
    "read_context": "stream",
    "sample_table": "stream",
    "score_table": "stream",
    "table_report": "report",
    "table_results": "evaluation",
    "table_summary": "evaluation",
    "tell_schema": "mixed",
    "write_run": "run",
}

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
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'maskedflow.estimator' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
