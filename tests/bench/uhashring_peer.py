#!/usr/bin/python3
"""Speed of uHashRing (python3-uhashring), in CPU time, as tests/bench/ring_bench.cpp measures ours.

uhashring_peer.py [ROUNDS]: prints one JSON line: for each form and number of nodes the medians of nanoseconds a
lookup and milliseconds a build.
"""

import json
import statistics
import sys
import time

from uhashring import HashRing

KEYS = ["thread-%d" % (i * 7919 % 1_000_003) for i in range(20_000)]


def measure(nodes, arguments, rounds):
    lookups = []
    builds = []
    for _ in range(rounds):
        start = time.thread_time_ns()
        ring = HashRing(nodes, **arguments)
        builds.append((time.thread_time_ns() - start) / 1e6)
        get_node = ring.get_node
        start = time.thread_time_ns()
        for key in KEYS:
            get_node(key)
        lookups.append((time.thread_time_ns() - start) / len(KEYS))
    return statistics.median(lookups), statistics.median(builds)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    figures = []
    for form, arguments in (
        ("uhashring", {}),
        ("uhashring-256", {"vnodes": 256}),
        ("ketama", {"hash_fn": "ketama"}),
    ):
        for partitions in (8, 64, 1000):
            # Names of the ring's own nodes. At 1,000 the ketama form inserts into a list for each point.
            lookup_ns, build_ms = measure([str(i) for i in range(partitions)], arguments, rounds)
            figures.append(
                {"form": form, "partitions": partitions, "lookup_ns": lookup_ns, "build_ms": build_ms}
            )
    print(json.dumps(figures))


main()
