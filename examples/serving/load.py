"""Asks a service on this machine for scores, many at once, and says how fast it answers.

    python examples/serving/load.py maf_results/people [--connections 32] [--seconds 10]

It starts the service, sends rows that the run itself has drawn, one a request, and prints requests
a second, the median and the 99th percentile of the time that an answer took, and the median that
the service had for its handler.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    """Sends a request, and gives the body of its answer, which has to be a good one."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    body = await reader.readexactly(int(length[1]) if length else 0)
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{head.decode().splitlines()[0]}: {body.decode()}")
    return body


def http(path: str, body: object = None) -> bytes:
    """A request that keeps its connection."""
    text = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    kind = f"content-type: application/json\r\ncontent-length: {len(text)}"
    return f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n{kind}\r\n\r\n".encode() + text


async def load(port: int, rows: list[dict[str, object]], connections: int, seconds: float) -> None:
    """Keeps connections busy for some seconds, and prints what was seen."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = number
        while time.perf_counter() < end:
            start = time.perf_counter()
            await ask(reader, writer, http("/score", {"rows": [rows[sent % len(rows)]]}))
            times.append(time.perf_counter() - start)
            sent += connections
        writer.close()

    await asyncio.gather(*map(client, range(connections)))
    streams = await asyncio.open_connection("127.0.0.1", port)
    metrics = (await ask(*streams, http("/metrics"))).decode()
    streams[1].close()
    handler = re.search(r'path="/score",quantile="0.5"} (\S+)', metrics)
    calls, scored = re.search(r"score_calls_total (\d+)", metrics), len(times)
    p50, p99 = (1e3 * np.quantile(times, share) for share in (0.5, 0.99))
    print(
        f"{connections} connections: {scored / seconds:.0f} requests/s, p50 {p50:.2f} ms, ", end=""
    )
    print(f"p99 {p99:.2f} ms, handler {1e3 * float(handler[1]):.2f} ms, calls so far {calls[1]}")


async def ready(port: int, service: subprocess.Popen[bytes]) -> None:
    """Waits until the service answers."""
    while service.poll() is None:
        try:
            streams = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            await asyncio.sleep(0.1)
        else:
            await ask(*streams, http("/health"))
            streams[1].close()
            return
    raise SystemExit("the service ended")


async def rows_of(port: int, context: str | None) -> list[dict[str, object]]:
    """Rows that the run draws, given contexts of a JSON file if it has some."""
    given = json.loads(Path(context).read_text("utf-8")) if context else []
    streams = await asyncio.open_connection("127.0.0.1", port)
    request = http("/sample", {"context": given} if given else {"n": 500})
    drawn = json.loads(await ask(*streams, request))["rows"]
    streams[1].close()
    return [row | c for row, c in zip(drawn, given or [{}] * len(drawn), strict=True)]


async def measure(port: int, service: subprocess.Popen[bytes], options: argparse.Namespace) -> None:
    """One connection, for how fast an answer can be, and many."""
    await ready(port, service)
    rows = await rows_of(port, options.context)
    await load(port, rows, 1, 1)  # what is compiled, is compiled now
    for connections in (1, options.connections):
        await load(port, rows, connections, options.seconds)


def main() -> None:
    """Starts the service, and ends it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("run")
    parser.add_argument("--context", help="JSON file: a list of contexts, of a conditional run")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    command = ["-m", "uvicorn", "--factory", "service:create", "--log-level", "warning", "--port"]
    service = subprocess.Popen(
        [sys.executable, *command, str(options.port), "--app-dir", str(HERE)],
        env=os.environ | {"RUN": options.run, "OMP_NUM_THREADS": "1"},
    )
    try:
        asyncio.run(measure(options.port, service, options))
    finally:
        service.terminate()
        service.wait()


if __name__ == "__main__":
    main()
