"""Hourly household power: densities and forecasts of a TemporalMAF beside two simpler models.

python examples/household_power.py [--quick]
"""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import torch
from numpy.typing import NDArray
from torch import Tensor

import maskedflow as mf
from maskedflow.data import Split, windows
from maskedflow.report import DATA_COLOUR, SAMPLE_COLOUR, fan_panel, new_figure, save
from maskedflow.runs import score_series

FILE = "household_power_consumption.txt"
COLUMNS = ("Global_active_power", "Global_reactive_power", "Voltage")
NAMES = ("log active power", "root of reactive power", "voltage")
HOUR, PRESENT = 60, 30
"""Minutes of an hour, and how many must be there, or the hour is missing."""

WEEK, AHEAD = 168, 48
WINDOW = 2 * WEEK
LAGS = (24, 48, WEEK)
LEVELS = (0.5, 0.8, 0.95)
HORIZONS = (1, 6, 24, 48)
DOCS = Path(__file__).parent.parent / "docs"


@dataclass(frozen=True)
class Hours:
    """The hourly series: values, calendar, whether an hour was measured, and where splits begin."""

    x: Tensor
    c: Tensor
    present: Tensor
    times: NDArray[np.datetime64]
    validation: int
    test: int


def read_hours(path: Path) -> Hours:
    """Hourly means of the minutes that are there.

    An hour with fewer than 30 minutes is missing: it gets the value of a week before, so that the
    past is complete, and is neither trained on nor scored.
    """
    columns = {name: pa.float64() for name in COLUMNS}
    table = pacsv.read_csv(
        path,
        parse_options=pacsv.ParseOptions(delimiter=";"),
        convert_options=pacsv.ConvertOptions(
            include_columns=["Date", "Time", *COLUMNS],
            column_types={"Date": pa.string(), "Time": pa.string(), **columns},
            null_values=["?", ""],
        ),
    )
    day, month, year = table["Date"][0].as_py().split("/")
    begin = np.datetime64(f"{year}-{int(month):02}-{int(day):02}T{table['Time'][0]}", "m")
    x = np.stack([table[name].to_numpy() for name in COLUMNS], axis=1)
    x = x[-begin.astype(int) % HOUR :]  # from the first full hour on; every minute has a row
    x = x[: len(x) // HOUR * HOUR].reshape(-1, HOUR, len(COLUMNS))
    measured = np.isfinite(x).all(axis=2)
    present = measured.sum(axis=1) >= PRESENT
    sums = np.where(measured[..., None], x, 0).sum(axis=1)
    hours = sums / np.maximum(measured.sum(axis=1), 1)[:, None]
    for hour in np.flatnonzero(~present):
        hours[hour] = hours[hour - WEEK]
    hours[:, 0] = np.log(hours[:, 0])
    hours[:, 1] = np.sqrt(hours[:, 1])
    times = (begin + (-begin.astype(int) % HOUR)).astype("datetime64[h]") + np.arange(len(hours))
    n = len(hours)
    return Hours(
        torch.from_numpy(hours).float(),
        calendar(times),
        torch.from_numpy(present),
        times,
        int(0.7 * n),
        int(0.8 * n),
    )


def calendar(times: NDArray[np.datetime64]) -> Tensor:
    """Waves of the day, the week and the year: the covariates of all three models."""
    hours = times.astype("datetime64[h]").astype(np.int64)
    waves = [(24, k) for k in (1, 2, 3, 4)] + [(24 * 7, k) for k in (1, 2, 3)] + [(8766, 1)]
    angles = np.stack([2 * math.pi * k * hours / period for period, k in waves], axis=1)
    return torch.from_numpy(np.hstack([np.sin(angles), np.cos(angles)])).float()


# ------------------------------------------------------------------------------------------ models


def spline_maf(quick: bool) -> dict[str, object]:
    """What both flows are made of."""
    return {
        "transforms": 1 if quick else 2,
        "hidden_features": (16,) if quick else (64, 64),
        "univariate": mf.transforms.MonotonicRQSTransform,
        "shapes": [(8,), (8,), (7,)],
    }


def train_temporal(hours: Hours, quick: bool, seconds: float) -> mf.flows.TemporalMAF:
    """Trains on windows at random places, and keeps the weights of the best validation."""
    generator = torch.Generator().manual_seed(0)
    train = hours.x[: hours.validation]
    flow = mf.flows.TemporalMAF(
        len(COLUMNS),
        hours.c.shape[1],
        hidden_size=16 if quick else 64,
        preprocessing=mf.transforms.Standardize.fit(train[hours.present[: hours.validation]]),
        generator=generator,
        **spline_maf(quick),
    )
    rounds, size = (2, 8) if quick else (24, 16)
    steps = math.ceil(len(train) / WINDOW / size * 4)  # of a round
    optimizer = torch.optim.AdamW(flow.parameters(), lr=3e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, rounds * steps)
    best, weights, begun = -math.inf, flow.state_dict(), time.monotonic()
    for _ in range(rounds):
        flow.train()
        for _ in range(steps):
            starts = torch.randint(len(train) - WINDOW, (size,), generator=generator)
            rows = starts[:, None] + torch.arange(WINDOW)
            log_prob = flow(hours.c[rows]).log_prob_steps(hours.x[rows])
            loss = -log_prob[hours.present[rows]].mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
            optimizer.step()
            schedule.step()
        found = temporal_scores(flow, hours, hours.validation, hours.test).mean().item()
        if found > best:
            best, weights = found, {k: v.clone() for k, v in flow.state_dict().items()}
        if time.monotonic() - begun > seconds:
            break
    flow.load_state_dict(weights)
    print(f"TemporalMAF: {time.monotonic() - begun:.0f} s, validation {best:.3f}", flush=True)
    return flow.eval()


def temporal_scores(flow: mf.flows.TemporalMAF, hours: Hours, start: int, stop: int) -> Tensor:
    """Gives log p of each hour measured from start to stop, given at least a week before it."""
    begin = start - WINDOW
    series = Split(hours.x[begin:stop], hours.c[begin:stop])
    return score_series(flow, series, WINDOW)[WINDOW:][hours.present[start:stop]]


def independent_scores(hours: Hours, quick: bool, seconds: float) -> Tensor:
    """Gives log p of the test hours under a MAF that knows the calendar and not the past."""
    parts = [
        Split(hours.x[rows][hours.present[rows]], hours.c[rows][hours.present[rows]])
        for rows in (
            slice(0, hours.validation),
            slice(hours.validation, hours.test),
            slice(hours.test, None),
        )
    ]
    maf = mf.flows.MAF(
        len(COLUMNS),
        hours.c.shape[1],
        generator=torch.Generator().manual_seed(0),
        **spline_maf(quick),
    )
    flow = mf.flows.Flow([mf.transforms.Standardize.fit(parts[0].x), maf.transform], maf.base)
    config = mf.training.TrainConfig(
        epochs=2 if quick else 40, batch_size=500, lr=2e-3, schedule="cosine", time_limit=seconds
    )
    mf.training.fit(flow, parts[0], parts[1], config)
    return mf.training.evaluate(flow, parts[2])


class Autoregression:
    """x_t = B [1, c_t, x_{t-p}, ..., x_{t-1}] + noise with a full covariance, by least squares."""

    def __init__(self, hours: Hours, lags: int) -> None:
        self.hours, self.lags = hours, lags
        rows = torch.arange(lags, hours.validation)
        rows = rows[hours.present[rows]]
        design, x = self.design(rows), hours.x[rows].double()
        self.weights = torch.linalg.lstsq(design, x, driver="gelsd").solution
        residual = x - design @ self.weights
        self.covariance = residual.T @ residual / len(rows)

    def design(self, rows: Tensor) -> Tensor:
        """What is known of each hour beforehand."""
        past = windows(self.hours.x, self.lags)[rows - self.lags].flatten(1)
        return torch.hstack([torch.ones(len(rows), 1), self.hours.c[rows], past]).double()

    def scores(self, start: int, stop: int) -> Tensor:
        """Gives log p of each hour measured from start to stop, given the hours before."""
        rows = torch.arange(start, stop)[self.hours.present[start:stop]]
        mean = self.design(rows) @ self.weights
        normal = torch.distributions.MultivariateNormal(mean, self.covariance)
        return normal.log_prob(self.hours.x[rows].double())

    def forecast(self, origins: Tensor) -> tuple[Tensor, Tensor]:
        """Means, shape (origins, 48, 3), and standard deviations, shape (48, 3), of the future."""
        width, c = len(COLUMNS), self.hours.c.double()
        known = windows(self.hours.x, self.lags)[origins - self.lags].double()
        ones = torch.ones(len(origins), 1, dtype=torch.float64)
        answer = torch.zeros(self.lags, width, width, dtype=torch.float64)  # to an impulse
        answer = torch.cat([answer, torch.eye(width, dtype=torch.float64)[None]])
        lagged = self.weights[-self.lags * width :]
        for h in range(AHEAD):
            row = torch.hstack([ones, c[origins + h], known[:, -self.lags :].flatten(1)])
            known = torch.cat([known, (row @ self.weights)[:, None]], dim=1)
            past = answer[-self.lags :].transpose(0, 1).flatten(1)  # one impulse a row
            answer = torch.cat([answer, (past @ lagged)[None]])
        impulses = answer[self.lags : self.lags + AHEAD]
        variances = torch.einsum("hij,ik,hkj->hj", impulses, self.covariance, impulses).cumsum(0)
        return known[:, self.lags :], variances.sqrt()


# --------------------------------------------------------------------------------------- forecasts


def origins_of(hours: Hours) -> Tensor:
    """Every 25th hour of the test part, so at all hours of the day, where 48 hours follow."""
    starts = torch.arange(hours.test, len(hours.x) - AHEAD, 25)
    whole = windows(hours.present[:, None].float(), WEEK + AHEAD)[..., 0].all(dim=1)
    return starts[whole[starts - WEEK]]


def forecasts(flow: mf.flows.TemporalMAF, hours: Hours, origins: Tensor, n: int) -> Tensor:
    """Draws n times 48 hours from each origin, given two weeks, shape (n, origins, 48, 3)."""
    past = origins[:, None] + torch.arange(-WINDOW, 0)
    known = origins[:, None] + torch.arange(-WINDOW, AHEAD)
    with torch.no_grad():
        ahead = flow.forecast(hours.x[past], c=hours.c[known])
        return ahead.sample((n,), generator=torch.Generator().manual_seed(0))


def sample_crps(samples: Tensor, y: Tensor) -> Tensor:
    """E|X - y| - E|X - X'| / 2, the latter from ordered samples."""
    n = len(samples)
    ranks = torch.arange(1, n + 1).view(-1, *[1] * y.ndim)
    spread = ((2 * ranks - n - 1) * samples.sort(dim=0).values).sum(dim=0) / (n * (n - 1))
    return (samples - y).abs().mean(dim=0) - spread


def normal_crps(mean: Tensor, deviation: Tensor, y: Tensor) -> Tensor:
    """The same of a normal distribution, in closed form."""
    normal, z = torch.distributions.Normal(0.0, 1.0), (y - mean) / deviation
    density = normal.log_prob(z).exp()
    return deviation * (z * (2 * normal.cdf(z) - 1) + 2 * density - math.pi**-0.5)


# ----------------------------------------------------------------------------------------- results


def with_error(values: Tensor) -> str:
    """A mean with two standard errors, those of the means of weeks: hours are not independent."""
    weeks = torch.stack([week.mean() for week in values.split(WEEK) if len(week) == WEEK])
    return f"{values.mean():.3f} ± {2 * weeks.std() / len(weeks) ** 0.5:.3f}"


def coverage(u: Tensor) -> str:
    """The share of truths in the central intervals, given their places u in the forecasts."""
    return " | ".join(f"{((u - 0.5).abs() < level / 2).double().mean():.1%}" for level in LEVELS)


def likelihood_table(scores: dict[str, Tensor]) -> list[str]:
    """Test log-likelihoods, and how much better the first is than each other."""
    first = next(iter(scores.values()))
    lines = ["| model | log-likelihood, nats per hour | TemporalMAF's lead |", "|---|---|---|"]
    for name, values in scores.items():
        lead = "" if values is first else with_error(first - values)
        lines.append(f"| {name} | {with_error(values)} | {lead} |")
    return lines


def forecast_tables(
    samples: Tensor, truth: Tensor, mean: Tensor, deviation: Tensor
) -> tuple[list[str], dict[str, Tensor]]:
    """Coverage and CRPS of the active power, and the places of the truth in both forecasts."""
    flow, y = samples[..., 0], truth[..., 0]
    mean, deviation = mean[..., 0], deviation[:, 0]
    u = ((flow < y).sum(dim=0) + 0.5) / (len(flow) + 1)
    v = torch.distributions.Normal(mean, deviation).cdf(y.double())
    lines = [
        "| hours ahead | model | in 50% | in 80% | in 95% | CRPS |",
        "|---|---|---|---|---|---|",
    ]
    scores = sample_crps(flow, y), normal_crps(mean, deviation, y)
    for horizon in HORIZONS:
        h = horizon - 1
        for name, places, crps in zip(("TemporalMAF", "VAR"), (u, v), scores, strict=True):
            lines.append(
                f"| {horizon} | {name} | {coverage(places[:, h])} | {crps[:, h].mean():.3f} |"
            )
    for name, places, crps in zip(("TemporalMAF", "VAR"), (u, v), scores, strict=True):
        lines.append(f"| 1 to {AHEAD} | {name} | {coverage(places)} | {crps.mean():.3f} |")
    energy, used = flow.exp().sum(dim=-1), y.exp().sum(dim=-1)
    total = ((energy < used).sum(dim=0) + 0.5) / (len(flow) + 1)
    lines.append(f"| sum of {AHEAD}, in kWh | TemporalMAF | {coverage(total)} | |")
    return lines, {"TemporalMAF": u, "VAR": v}


def fan_figure(hours: Hours, samples: Tensor, origins: Tensor, path: Path) -> None:
    """Forecasts from three origins over the truth."""
    figure = new_figure(9, 7)
    chosen = torch.linspace(0.1, 0.9, 3).mul(len(origins)).long().tolist()
    panels = figure.subplots(len(chosen), 1)
    for axes, i in zip(panels, chosen, strict=True):
        origin = int(origins[i])
        past, ahead = slice(origin - AHEAD, origin), slice(origin, origin + AHEAD)
        fan_panel(
            axes,
            hours.times[ahead],
            samples[:, i, :, 0].exp().numpy(),
            past=(hours.times[past], hours.x[past, 0].exp().numpy()),
            truth=hours.x[ahead, 0].exp().numpy(),
            name="active power (kW)",
        )
        axes.axvline(hours.times[origin], color="0.6", lw=0.8)
    panels[0].legend(fontsize=8, frameon=False, ncols=5)
    save(figure, path, dpi=110)


def pit_figure(places: dict[str, Tensor], path: Path) -> None:
    """Where the truth falls among the forecasts: flat if they are calibrated."""
    figure = new_figure(9, 3)
    for axes, horizon in zip(figure.subplots(1, 3, sharey=True), (1, 24, 48), strict=True):
        for (name, u), colour in zip(places.items(), (SAMPLE_COLOUR, DATA_COLOUR), strict=True):
            axes.hist(
                u[:, horizon - 1].numpy(),
                bins=10,
                range=(0, 1),
                density=True,
                histtype="stepfilled" if colour == SAMPLE_COLOUR else "step",
                alpha=0.5 if colour == SAMPLE_COLOUR else 1,
                color=colour,
                label=name,
            )
        axes.axhline(1, color="0.4", lw=0.8, ls="--")
        axes.set_title(f"{horizon} h ahead", fontsize=9)
        axes.set_xlabel("place of the truth in the forecasts", fontsize=8)
        axes.tick_params(labelsize=8)
    figure.axes[0].legend(fontsize=8, frameon=False)
    save(figure, path, dpi=110)


def publish(lines: list[str], page: Path) -> None:
    """Puts the results between the marks of a page, or makes a page of them."""
    begin, end = "<!-- results -->\n", "<!-- end of results -->"
    text = page.read_text("utf-8") if page.exists() else begin + end
    head, _, rest = text.partition(begin)
    tail = rest.partition(end)[2]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(head + begin + "\n" + "\n".join(lines) + "\n\n" + end + tail, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small model, to try the code")
    parser.add_argument("--out", type=Path, help="where examples/ and images/ go")
    options = parser.parse_args()
    out = options.out or (Path("maf_results/examples") if options.quick else DOCS)
    begun = time.monotonic()
    folder = Path(os.environ.get("MASKEDFLOW_DATA", Path.home() / ".cache" / "maskedflow"))
    hours = read_hours(folder / "power" / FILE)
    print(f"{len(hours.x):,} hours, {int((~hours.present).sum())} of them missing", flush=True)

    flow = train_temporal(hours, options.quick, seconds=360)
    models = {p: Autoregression(hours, p) for p in (LAGS[:1] if options.quick else LAGS)}
    validated = {p: m.scores(hours.validation, hours.test).mean() for p, m in models.items()}
    lags = max(validated, key=lambda p: validated[p])
    var = models[lags]
    scores = {
        "TemporalMAF": temporal_scores(flow, hours, hours.test, len(hours.x)),
        f"VAR({lags}), linear and Gaussian": var.scores(hours.test, len(hours.x)),
        "MAF of each hour, calendar only": independent_scores(hours, options.quick, seconds=90),
    }
    table = likelihood_table(scores)
    print("\n".join(table), flush=True)

    origins = origins_of(hours)[:: 8 if options.quick else 1]
    samples = forecasts(flow, hours, origins, 20 if options.quick else 200)
    truth = hours.x[origins[:, None] + torch.arange(AHEAD)]
    tables, places = forecast_tables(samples, truth, *var.forecast(origins))
    print("\n".join(tables))
    fan_figure(hours, samples, origins, out / "images" / "household_power_fan.png")
    pit_figure(places, out / "images" / "household_power_pit.png")
    seconds = time.monotonic() - begun
    note = (
        f"{len(scores['TemporalMAF']):,} test hours; {len(origins)} origins with "
        f"{len(samples)} forecasts each; {seconds:.0f} s in all."
    )
    publish([*table, "", *tables, "", note], out / "examples" / "household_power.md")
    print(note)


if __name__ == "__main__":
    main()
