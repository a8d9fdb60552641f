"""The options of ``maskedflow train``, from the command line over a TOML file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, ArgumentCollection, Parameter
from cyclopts.config import Dict
from cyclopts.types import PositiveFloat, PositiveInt
from cyclopts.validators import Number

_Size = Annotated[int, Parameter(validator=Number(gte=1, lte=2**16))]
"""A size that no machine's memory refuses by itself."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What can be asked of ``maskedflow train``; ``None`` is "not said".

    Attributes:
        dataset: Name of a known data set (see: maskedflow datasets).
        data: A table of your own: .csv, .parquet or a folder of .parquet; a chain, a result or
            another file of samples (see docs/files.md); FILE::PART is one of several in a file.
        stream: Leave the table on disk and shuffle it through a buffer; a sample of up to 100,000
            rows sets statistics of --batch_norm. [default: if it has an eighth of the memory]
        auto: Train MNIST, then CIFAR-10, each with its own defaults.
        flow: Which flow, see below; or auto, a density estimator that chooses for itself and takes
            columns of every kind. [default: maf, or nsf for a single column; auto if --data has
            columns of other kinds than numbers]
        schema: TOML file with what is known of the columns of --data (see: maskedflow schema).
        missing: What becomes of missing values: error, drop (the rows) or model. [default: error]
        base: The distribution behind a flow's last transform. [default: normal]
        hidden_dim: Units of a hidden layer. [default: 512, or the data set's own]
        num_layers: Transforms in the flow. [default: 5, or the data set's own]
        hidden_layers: Hidden layers of each network. [default: 2, or the data set's own]
        residual: Residual blocks as hidden layers.
        degrees: How hidden units share out the features they see. [default: sequential]
        start: What a flow is before its first step: the identity; or the gaussian of the training
            rows, by a layer before all others. [default: identity, or the data set's own]
        batch_norm: Batch normalisation after every transform.
        epochs: Most passes over the training rows. [default: 100, or the data set's own]
        batch_size: Rows in a step. [default: 100, or the data set's own]
        lr: Learning rate of Adam. [default: 1e-4, or the data set's own]
        schedule: Learning rate over the run. [default: cosine]
        patience: Stop after this many epochs without a better validation NLL. [default: 30]
        time_limit: Stop training after this many seconds; --flow auto chooses --work by it.
        steps: Stop training after this many steps, whatever --time_limit says: a run with such a
            limit records the steps that there was time for.
        lr_steps: Steps over which the learning rate falls; a run with a time limit records those
            that it had planned. [default: all there are]
        work: How much --flow auto may do, in units of about a second of a core; what is found
            depends on it and on no clock. [default: by the size of the table]
        engine: What spreads the members of a search over processes: ray. What is found is the same.
        recompute: Compute what is within a transform again for gradients, instead of keeping it:
            less memory, more time.
        context: Columns of --data to condition on, separated by commas.
        error: Column of the standard deviations of a column's measurement errors, such as
            mag=mag_err; again for each column that has one. The density is that without them.
        weights: Column of --data that says how much each row counts, such as those of importance
            samples; it is no feature. [default: the column that the file itself names, if any]
        continuous: Give whole numbers, flags and other values on a grid a continuous density, too,
            which has no bound there. [default: they are dequantised]
        time: Column of times of --data, dates or numbers: its rows are one time series.
        window: Steps of a time series to train on at once. [default: 168, or the validation's]
        labels: Condition an image data set on its class labels.
        seed: Seed of every random draw. [default: 0]
        resume: Go on with an interrupted run, as if it had never stopped.
        data_dir: Where data sets lie. [default: $MASKEDFLOW_DATA, then the user's cache]
        download: Fetch the data set when it is not here.
        out: Directory of all runs. [default: maf_results]
        tensorboard: Write TensorBoard's event files beside logs/metrics.jsonl.
        report: Write report.html at the end, as is done if nothing is said.
        config: TOML file with any of these options; the command line goes before it.
    """

    dataset: str | None = None
    data: Path | None = None
    stream: Annotated[bool | None, Parameter(negative="--no_stream")] = None
    auto: bool = False
    flow: str | None = None
    schema: Path | None = None
    missing: Literal["error", "drop", "model"] | None = None
    base: Literal["normal", "student-t", "mixture", "made", "marginals"] | None = None
    hidden_dim: _Size | None = None
    num_layers: _Size | None = None
    hidden_layers: _Size | None = None
    degrees: Literal["sequential", "random"] | None = None
    residual: Annotated[bool | None, Parameter(negative="--no_residual")] = None
    batch_norm: Annotated[bool | None, Parameter(negative="--no_batch_norm")] = None
    start: Literal["identity", "gaussian"] | None = None
    epochs: PositiveInt | None = None
    batch_size: PositiveInt | None = None
    lr: PositiveFloat | None = None
    schedule: Literal["constant", "cosine"] | None = None
    patience: PositiveInt | None = None
    time_limit: PositiveFloat | None = None
    steps: PositiveInt | None = None
    lr_steps: PositiveInt | None = None
    work: PositiveFloat | None = None
    engine: Literal["ray"] | None = None
    recompute: Annotated[bool | None, Parameter(negative="--no_recompute")] = None
    context: str | None = None
    error: Annotated[list[str] | None, Parameter(negative_iterable=())] = None
    weights: str | None = None
    continuous: bool | None = None
    time: str | None = None
    window: PositiveInt | None = None
    labels: bool | None = None
    seed: Annotated[int | None, Parameter(validator=Number(gte=0, lt=2**63))] = None
    resume: bool = False
    data_dir: Path | None = None
    download: bool = False
    out: Path | None = None
    tensorboard: bool = False
    report: Annotated[bool, Parameter(negative="--no_report")] = True
    config: Path | None = None


def config_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill the options that the command line leaves open from the file named by ``--config``.

    The file is a flat table of options, or a run's own ``config.toml``, whose ``[options]`` count.
    """
    given = next(a for a in arguments if "--config" in a.names).tokens
    if not given:
        return
    path = Path(given[0].value)
    from maskedflow.files import blame, parse_toml, read_text

    text = read_text(path)
    with blame(path, "not a TOML file (--config)"):
        document = parse_toml(text)
        found = dict(document.get("options", document))
    options = {key.replace("-", "_"): value for key, value in found.items()}
    for command in reversed(commands):  # in a flat table, options named as commands were left out
        options = {command: options}
    Dict(options, source=str(path))(app, commands, arguments)
