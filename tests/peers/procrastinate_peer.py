"""Procrastinate on PostgreSQL with the job that costs nothing: prints what it does a second, one JSON object a line."""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time

import procrastinate
from counting import Counters, percentiles

# Jobs a statement when many are submitted.
BATCH = 1_000

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["PEER_DATABASE_URL"]))
counters = None


@app.task(name="noop")
async def noop(sent_at):
    global counters
    counters = counters or Counters(os.environ["PEER_COUNTERS"])
    counters.count(sent_at)


async def measure(arguments, counters):
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        began = time.time()
        for start in range(0, arguments.jobs, BATCH):
            await noop.batch_defer_async(*[{"sent_at": 0.0}] * min(BATCH, arguments.jobs - start))
        print(json.dumps({"peer": "procrastinate", "what": "submit", "jobs": arguments.jobs, "jobs_per_second": arguments.jobs / (time.time() - began)}), flush=True)
        command = [sys.executable, os.path.abspath(__file__), "--work", str(arguments.prefetch)]
        workers = [subprocess.Popen(command) for _ in range(arguments.workers)]
        try:
            seconds = counters.wait_for(arguments.jobs, 600)
            print(json.dumps({"peer": "procrastinate", "what": "drain", "jobs": arguments.jobs, "workers": arguments.workers, "jobs_per_second": arguments.jobs / seconds}), flush=True)
            waits = []
            for probe in range(arguments.probes):
                await noop.defer_async(sent_at=time.time())
                counters.wait_for(arguments.jobs + probe + 1, 60)
                waits.append(counters.last_wait())
            print(json.dumps({"peer": "procrastinate", "what": "start"} | percentiles(waits)), flush=True)
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait(30)


async def work(concurrency):
    async with app.open_async():
        await app.run_worker_async(concurrency=concurrency, listen_notify=True)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--jobs", type=int, default=20_000)
    arguments.add_argument("--workers", type=int, default=4)
    arguments.add_argument("--prefetch", type=int, default=64)
    arguments.add_argument("--probes", type=int, default=300)
    arguments.add_argument("--work", type=int, metavar="CONCURRENCY", help=argparse.SUPPRESS)
    arguments = arguments.parse_args()
    if arguments.work:
        asyncio.run(work(arguments.work))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PEER_COUNTERS"] = os.path.join(folder, "counters")
        counters = Counters(os.environ["PEER_COUNTERS"], create=True)
        asyncio.run(measure(arguments, counters))


if __name__ == "__main__":
    # Workers know this module by its name, and its jobs too.
    import procrastinate_peer

    procrastinate_peer.main()
