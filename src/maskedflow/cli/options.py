"""The options of ``maskedflow train``, from the command line over a TOML file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, ArgumentCollection, Group, Parameter
from cyclopts.config import Dict
from cyclopts.types import PositiveFloat, PositiveInt
from cyclopts.validators import Number

from .csv import CsvOptions, Table

Device = Literal["auto", "cpu", "cuda", "mps"]

# An option is a line below and one above it that says what it is; those without a group come first.
TABLE = Parameter(group=Group("A table of your own", sort_key=1))
FLOW = Parameter(group=Group("The flow", sort_key=2))
TRAINING = Parameter(group=Group("The training", sort_key=3))
SETS = Parameter(group=Group("Known data sets", sort_key=4))
RESULTS = Parameter(group=Group("Results", sort_key=5))

_Size = Annotated[int, Parameter(validator=Number(gte=1, lte=2**16))]
"""A size that no machine's memory refuses by itself."""

_Base = Literal["normal", "student-t", "mixture", "made", "marginals"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainOptions(CsvOptions):
    """What can be asked of ``maskedflow train``; ``None`` is "not said".

    Attributes:
        dataset: Name of a known data set (see: maskedflow datasets).
        data: A table of your own: .csv, .tsv, .parquet or a folder of .parquet; a chain, a result
            or another file of samples (see docs/files.md); a part of one is named behind ::.
        flow: Name of a flow; or auto, a density estimator that chooses for itself and takes columns
            of every kind. [default: maf, or nsf for a single column; auto if --data has columns of
            other kinds than numbers]
        context: Columns of --data to condition on, separated by commas.
        epochs: Most passes over the training rows. [default: 100, or the data set's own]
        batch_size: Rows in a step. [default: 100, or the data set's own]
        lr: Learning rate of Adam. [default: 1e-4, or the data set's own]
        time_limit: Stop training after this many seconds; --flow auto chooses --work by it.
        seed: Seed of every random draw. [default: 0]
        out: Directory of all runs. [default: maf_results]
        resume: Go on with a run that was interrupted or killed, as if it had never stopped.
        config: TOML file with any of these options; the command line goes before it.
        schema: TOML file with what is known of the columns of --data (see: maskedflow schema).
        missing: What becomes of missing values: error, drop (the rows) or model. [default: error]
        weights: Column of --data that says how much each row counts, such as those of importance
            samples; it is no feature. [default: the column that the file itself names, if any]
        error: Column of the standard deviations of a column's measurement errors, such as
            mag=mag_err; again for each column that has one. The density is that without them.
        time: Column of times of --data, dates or numbers: its rows are one time series.
        window: Steps of a time series to train on at once. [default: 168, or the validation's]
        continuous: Give whole numbers, flags and other values on a grid a continuous density, too,
            which has no bound there. [default: they are dequantised]
        stream: Leave the table on disk and shuffle it through a buffer; a sample of up to 100,000
            rows sets statistics of --batch_norm. [default: if it has an eighth of the memory]
        base: The distribution behind a flow's last transform. [default: normal]
        hidden_dim: Units of a hidden layer. [default: 512, or the data set's own]
        num_layers: Transforms in the flow. [default: 5, or the data set's own]
        hidden_layers: Hidden layers of each network. [default: 2, or the data set's own]
        residual: Residual blocks as hidden layers.
        degrees: How hidden units share out the features they see. [default: sequential]
        start: What a flow is before its first step: the identity; or the gaussian of the training
            rows, by a layer before all others. [default: identity, or the data set's own]
        batch_norm: Batch normalisation after every transform.
        schedule: Learning rate over the run. [default: cosine]
        patience: Stop after this many epochs without a better validation NLL. [default: 30]
        steps: Stop training after this many steps, whatever --time_limit says: a run with such a
            limit records the steps that there was time for.
        lr_steps: Steps over which the learning rate falls; a run with a time limit records those
            that it had planned. [default: all there are]
        work: How much --flow auto may do, in units of about a second of a core; what is found
            depends on it and on no clock. [default: by the size of the table]
        engine: What spreads the members of a search over processes: ray. What is found is the same.
        recompute: Compute what is within a transform again for gradients, instead of keeping it:
            less memory, more time.
        device: Where a flow is trained and measured: cpu, cuda, mps; or auto, which is cuda where
            there is one, else cpu. Draws by seed are those of one device. [default: cpu]
        auto: Train MNIST, then CIFAR-10, each with its own defaults.
        labels: Condition an image data set on its class labels.
        download: Fetch the data set when it is not here.
        data_dir: Where data sets lie. [default: $MASKEDFLOW_DATA, then the user's cache]
        report: Write report.html at the end, as is done if nothing is said.
        tensorboard: Write TensorBoard's event files beside logs/metrics.jsonl.
    """

    dataset: str | None = None
    data: Table | None = None
    flow: str | None = None
    context: str | None = None
    epochs: PositiveInt | None = None
    batch_size: PositiveInt | None = None
    lr: PositiveFloat | None = None
    time_limit: PositiveFloat | None = None
    seed: Annotated[int | None, Parameter(validator=Number(gte=0, lt=2**63))] = None
    out: Path | None = None
    resume: bool = False
    config: Path | None = None
    schema: Annotated[Path | None, TABLE] = None
    missing: Annotated[Literal["error", "drop", "model"] | None, TABLE] = None
    weights: Annotated[str | None, TABLE] = None
    error: Annotated[list[str] | None, TABLE, Parameter(negative_iterable=())] = None
    time: Annotated[str | None, TABLE] = None
    window: Annotated[PositiveInt | None, TABLE] = None
    continuous: Annotated[bool | None, TABLE] = None
    stream: Annotated[bool | None, TABLE, Parameter(negative="--no_stream")] = None
    base: Annotated[_Base | None, FLOW] = None
    hidden_dim: Annotated[_Size | None, FLOW] = None
    num_layers: Annotated[_Size | None, FLOW] = None
    hidden_layers: Annotated[_Size | None, FLOW] = None
    residual: Annotated[bool | None, FLOW, Parameter(negative="--no_residual")] = None
    degrees: Annotated[Literal["sequential", "random"] | None, FLOW] = None
    start: Annotated[Literal["identity", "gaussian"] | None, FLOW] = None
    batch_norm: Annotated[bool | None, FLOW, Parameter(negative="--no_batch_norm")] = None
    schedule: Annotated[Literal["constant", "cosine"] | None, TRAINING] = None
    patience: Annotated[PositiveInt | None, TRAINING] = None
    steps: Annotated[PositiveInt | None, TRAINING] = None
    lr_steps: Annotated[PositiveInt | None, TRAINING] = None
    work: Annotated[PositiveFloat | None, TRAINING] = None
    engine: Annotated[Literal["ray"] | None, TRAINING] = None
    recompute: Annotated[bool | None, TRAINING, Parameter(negative="--no_recompute")] = None
    device: Annotated[Device | None, TRAINING] = None
    auto: Annotated[bool, SETS] = False
    labels: Annotated[bool | None, SETS] = None
    download: Annotated[bool, SETS] = False
    data_dir: Annotated[Path | None, SETS] = None
    report: Annotated[bool, RESULTS, Parameter(negative="--no_report")] = True
    tensorboard: Annotated[bool, RESULTS] = False


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


def whole_numbers(_app: App, _commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse decimals where an integer is expected: cyclopts would round them."""
    for argument in arguments:
        if argument.hint in (int, int | None):
            for token in argument.tokens:
                if "." in token.value:
                    raise ValueError(f"{argument.name} {token.value}: expected a whole number")
