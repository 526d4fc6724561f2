"""Celery on RabbitMQ with the job that costs nothing: prints what it does a second, one JSON object a line.

Durable as dotmask is: a quorum queue, persistent messages that the broker has confirmed before the submitter goes on, and messages
acknowledged after their job."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

from celery import Celery
from counting import Counters, percentiles

app = Celery("peer", broker=os.environ["AMQP_URL"])
app.conf.update(
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    task_default_queue="peer",
    task_default_queue_type=os.environ.get("PEER_QUEUE_TYPE", "quorum"),
    task_default_exchange_type="direct",
    worker_detect_quorum_queues=True,
)
counters = None


@app.task(name="noop")
def noop(sent_at):
    global counters
    counters = counters or Counters(os.environ["PEER_COUNTERS"])
    counters.count(sent_at)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--jobs", type=int, default=20_000)
    arguments.add_argument("--workers", type=int, default=4)
    arguments.add_argument("--prefetch", type=int, default=64)
    arguments.add_argument("--probes", type=int, default=300)
    arguments = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PEER_COUNTERS"] = os.path.join(folder, "counters")
        counters = Counters(os.environ["PEER_COUNTERS"], create=True)
        began = time.time()
        with app.producer_pool.acquire() as producer:
            for _ in range(arguments.jobs):
                noop.apply_async((0.0,), producer=producer)
        print(json.dumps({"peer": "celery", "what": "submit", "jobs": arguments.jobs, "jobs_per_second": arguments.jobs / (time.time() - began)}), flush=True)
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "celery_peer", "worker", "--pool", "prefork", "--concurrency", str(arguments.workers)]
            + ["--prefetch-multiplier", str(arguments.prefetch), "--without-gossip", "--without-mingle", "--loglevel", "WARNING"],
            cwd=os.path.dirname(os.path.abspath(__file__)),
        )
        try:
            seconds = counters.wait_for(arguments.jobs, 600)
            print(json.dumps({"peer": "celery", "what": "drain", "jobs": arguments.jobs, "workers": arguments.workers, "jobs_per_second": arguments.jobs / seconds}), flush=True)
            waits = []
            for probe in range(arguments.probes):
                noop.delay(time.time())
                counters.wait_for(arguments.jobs + probe + 1, 60)
                waits.append(counters.last_wait())
            print(json.dumps({"peer": "celery", "what": "start"} | percentiles(waits)), flush=True)
        finally:
            worker.terminate()
            worker.wait(30)


if __name__ == "__main__":
    # Workers know this module by its name, and its jobs too.
    import celery_peer

    celery_peer.main()
