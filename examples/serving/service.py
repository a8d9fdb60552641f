"""A run behind HTTP: rows as JSON in, log-densities and samples out.

pip install maskedflow fastapi uvicorn
RUN=maf_results/people OMP_NUM_THREADS=1 uvicorn --factory service:create --workers 2
"""

import asyncio
import datetime as dt
import math
import os
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import torch
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, create_model

import maskedflow as mf
from maskedflow.runs import FlowDensity

MOST_ROWS = 10_000
Number = Annotated[float, Field(allow_inf_nan=False)]


def python_type(cells: pa.DataType) -> Any:
    """What a cell of a column is in JSON."""
    if pa.types.is_boolean(cells):
        return bool
    if pa.types.is_integer(cells):
        return int
    if pa.types.is_timestamp(cells):
        return dt.datetime
    if pa.types.is_date(cells):
        return dt.date
    return Number if pa.types.is_floating(cells) or pa.types.is_decimal(cells) else str


def row_model(name: str, types: dict[str, pa.DataType], gaps: set[str]) -> type[BaseModel]:
    """A model of rows of columns; a cell of those with gaps may be null, or left out."""
    # Columns may have any names, so fields have numbers, and the names are their aliases.
    fields: dict[str, Any] = {}
    for number, (column, cells) in enumerate(types.items()):
        kind = python_type(cells)
        given = (kind | None, None) if column in gaps else (kind, ...)
        fields[f"column_{number}"] = (given[0], Field(given[1], alias=column))
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


class Scorer:
    """The density of a run, of rows that come as models of theirs."""

    def __init__(self, folder: str) -> None:
        self.run = mf.load_run(folder)
        self.density = density = self.run.density
        schemas = () if isinstance(density, FlowDensity) else density.schemas
        self.gaps = {name for one in schemas if one.missing == "model" for name in one.needed}
        self.x = {name: density.types[name] for name in density.columns}
        self.given = {name: density.types[name] for name in density.context_columns}

    def log_prob(self, rows: list[BaseModel]) -> list[float | None]:
        """The log-densities of rows in nats; None is minus infinity, which JSON lacks."""
        table = arrow(rows, self.x | self.given)
        context = self.part(table, self.given) if self.given else None
        found = self.density.log_prob(self.part(table, self.x), context).tolist()
        return [value if math.isfinite(value) else None for value in found]

    def sample(self, n: int, given: list[BaseModel], seed: int) -> list[dict[str, Any]]:
        """Draws n rows, or one for each context."""
        context = self.part(arrow(given, self.given), self.given) if given else None
        drawn = self.density.sample(len(given) or n, context, seed=seed)
        return self.density.arrow(drawn).to_pylist()

    def part(self, table: pa.Table, types: dict[str, pa.DataType]) -> Any:
        """Some columns as the density takes them: a flow has tensors of numbers."""
        if not isinstance(self.density, FlowDensity):
            return table.select(list(types))
        columns = [torch.tensor(table[name].to_numpy()) for name in types]
        return torch.stack(columns, dim=1).to(self.density.dtype)


def arrow(rows: list[BaseModel], types: dict[str, pa.DataType]) -> pa.Table:
    """Rows as a table."""
    columns = zip(*(row.__dict__.values() for row in rows), strict=True)
    arrays = [pa.array(cells, kind) for cells, kind in zip(columns, types.values(), strict=True)]
    return pa.Table.from_arrays(arrays, list(types))


class Batcher:
    """Scores in one call what arrives while the call before is under way, on one thread."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.batches, self.rows = scorer, 0, 0
        self.queue: asyncio.Queue[tuple[list[BaseModel], asyncio.Future[Any]]] = asyncio.Queue()
        self.thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))

    async def call(self, function: Any, *args: Any) -> Any:
        """Calls a function on the thread."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, function, *args)

    async def score(self, rows: list[BaseModel]) -> list[float | None]:
        """The log-densities of rows, which go with those of others."""
        future = asyncio.get_running_loop().create_future()
        await self.queue.put((rows, future))
        return await future

    async def serve(self) -> None:
        """Takes what waits, again and again."""
        while True:
            waiting = [await self.queue.get()]
            total = len(waiting[0][0])
            while not self.queue.empty() and total < MOST_ROWS:
                waiting.append(self.queue.get_nowait())
                total += len(waiting[-1][0])
            self.batches, self.rows = self.batches + 1, self.rows + total
            for future, found in await self.call(self.answers, waiting):
                if future.cancelled():  # who asked has gone
                    continue
                if isinstance(found, Exception):
                    future.set_exception(found)
                else:
                    future.set_result(found)

    def answers(self, waiting: list[tuple[list[BaseModel], Any]]) -> list[tuple[Any, Any]]:
        """What each request is answered; one that cannot be leaves the others as they are."""
        try:
            found = iter(self.scorer.log_prob([row for rows, _ in waiting for row in rows]))
            return [(future, [next(found) for _ in rows]) for rows, future in waiting]
        except Exception as error:
            if len(waiting) == 1:
                return [(waiting[0][1], error)]
            return [pair for one in waiting for pair in self.answers([one])]


class Metrics:
    """What Prometheus scrapes: requests by path and status, and how long the last ones took."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.seconds: dict[str, deque[float]] = {}

    @contextmanager
    def timed(self, path: str) -> Iterator[None]:
        """Times a handler."""
        start = time.perf_counter()
        yield
        self.seconds.setdefault(path, deque(maxlen=1000)).append(time.perf_counter() - start)

    def text(self, batcher: Batcher) -> str:
        """The exposition format."""
        lines = ["# TYPE requests_total counter"]
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'requests_total{{path="{path}",status="{status}"}} {count}')
        lines += ["# TYPE scored_rows_total counter", f"scored_rows_total {batcher.rows}"]
        lines += ["# TYPE score_calls_total counter", f"score_calls_total {batcher.batches}"]
        lines.append("# TYPE handler_seconds gauge")
        for path, seconds in self.seconds.items():
            for share in (0.5, 0.99):
                value = np.quantile(seconds, share)
                lines.append(f'handler_seconds{{path="{path}",quantile="{share}"}} {value:.6f}')
        return "\n".join(lines) + "\n"


def create(folder: str | None = None) -> FastAPI:
    """The service of a run, the one that the environment variable RUN names if None."""
    scorer = Scorer(folder or os.environ["RUN"])
    metrics, batcher = Metrics(), Batcher(scorer)
    row_kind = row_model("Row", scorer.x | scorer.given, scorer.gaps)
    context_kind = row_model("Context", scorer.given, scorer.gaps)
    least = 1 if scorer.given else 0

    class Rows(BaseModel):
        rows: Annotated[list[row_kind], Field(min_length=1, max_length=MOST_ROWS)]

    class Draws(BaseModel):
        n: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 1
        context: Annotated[
            list[context_kind],
            Field(min_length=least, max_length=MOST_ROWS * least, validate_default=True),
        ] = []
        seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(batcher.serve())
        yield
        task.cancel()

    app = FastAPI(title=scorer.run.name, lifespan=lifespan)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"run": scorer.run.name, "columns": [*scorer.x, *scorer.given]}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def scrape() -> str:
        return metrics.text(batcher)

    @app.post("/score")
    async def score(body: Rows) -> dict[str, list[float | None]]:
        with metrics.timed("/score"):
            return {"log_prob": await batcher.score(body.rows)}

    @app.post("/sample")
    async def sample(body: Draws) -> dict[str, list[dict[str, Any]]]:
        with metrics.timed("/sample"):
            drawn = await batcher.call(scorer.sample, body.n, body.context, body.seed)
            return {"rows": drawn}

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"detail": f"{where}: {first['msg']}"}, 422)

    @app.exception_handler(ValueError)
    async def refused(_: Request, error: ValueError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.middleware("http")
    async def count(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        path = request.url.path if response.status_code != 404 else "other"
        metrics.requests[path, response.status_code] += 1
        return response

    return app
