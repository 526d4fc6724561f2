"""Counts no-op jobs across processes, in a file that all of them map into memory."""

import mmap
import os
import struct
import time

PLACES = 256
# Of each process: its id, jobs done, the first one's time and the last one's, and how long the last one had waited to be begun.
PLACE = struct.Struct("qqddd")


class Counters:
    """The file at `path`; every process that counts takes a place in it."""

    def __init__(self, path, create=False):
        if create:
            with open(path, "wb") as file:
                file.truncate(PLACES * PLACE.size)
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)

    def count(self, sent_at):
        """One more job, begun now."""
        now = time.time()
        offset = os.getpid() % PLACES * PLACE.size
        pid, jobs, first, _, _ = PLACE.unpack_from(self.map, offset)
        if pid not in (0, os.getpid()):
            raise RuntimeError("two processes have one place")
        PLACE.pack_into(self.map, offset, os.getpid(), jobs + 1, first or now, now, now - sent_at)

    def places(self):
        return [place for place in PLACE.iter_unpack(self.map) if place[1]]

    def jobs(self):
        return sum(place[1] for place in self.places())

    def wait_for(self, jobs, limit):
        """Until so many are done; says how long they took, from the first one's begin to the last one's."""
        deadline = time.time() + limit
        while self.jobs() < jobs:
            if time.time() > deadline:
                raise RuntimeError(f"{self.jobs()} of {jobs} jobs were done within {limit} s")
            time.sleep(0.001)
        return max(place[3] for place in self.places()) - min(place[2] for place in self.places())

    def last_wait(self):
        return max(self.places(), key=lambda place: place[3])[4]


def percentiles(seconds):
    ordered = sorted(seconds)
    value = lambda share: ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * share // 100) - 1))] * 1000
    return {"probes": len(ordered), "p50_ms": value(50), "p90_ms": value(90), "p99_ms": value(99), "max_ms": ordered[-1] * 1000}
