"""Data: your own tables, the paper's data sets, images and toy densities, ready to be modelled.

`load` knows data sets by name, `open_table` opens a CSV or Parquet file, and both give a `Dataset`:
three splits in the data's own units, with preprocessing transforms fitted on the training split.
"""

from maskedflow.files import write_text
from maskedflow.sources import (
    Dialect,
    Shard,
    Source,
    open_source,
    write_batches,
    write_table,
)

from .baselines import (
    Baseline,
    choose_kde,
    choose_mixture,
    conditional_gaussian,
    fit_gaussian,
    gaussian_log_likelihood,
)
from .dataset import (
    ContextStandardizer,
    Dataset,
    ImageDataset,
    SeriesDataset,
    StreamedDataset,
)
from .deconvolution import deconvolved_gaussian, measured_log_likelihood
from .fingerprint import Fingerprint, Seen, Trace
from .independent import independent
from .mixed import MixedTable, TableSplit, deal_mixed, infer_schema, open_mixed
from .registry import NAMES, Description, describe, load
from .series import Series, calendar, open_series, read_series, write_forecasts
from .split import Split
from .streamed import StreamedSplit, too_large
from .table import column_names, iter_batches, open_streamed, open_table, read_table
from .toy import toy
from .windows import windows

__all__ = [
    "NAMES",
    "Baseline",
    "ContextStandardizer",
    "Dataset",
    "Description",
    "Dialect",
    "Fingerprint",
    "ImageDataset",
    "MixedTable",
    "Seen",
    "Series",
    "SeriesDataset",
    "Shard",
    "Source",
    "Split",
    "StreamedDataset",
    "StreamedSplit",
    "TableSplit",
    "Trace",
    "calendar",
    "choose_kde",
    "choose_mixture",
    "column_names",
    "conditional_gaussian",
    "deal_mixed",
    "deconvolved_gaussian",
    "describe",
    "fit_gaussian",
    "gaussian_log_likelihood",
    "independent",
    "infer_schema",
    "iter_batches",
    "load",
    "measured_log_likelihood",
    "open_mixed",
    "open_series",
    "open_source",
    "open_streamed",
    "open_table",
    "read_series",
    "read_table",
    "too_large",
    "toy",
    "windows",
    "write_batches",
    "write_forecasts",
    "write_table",
    "write_text",
]
