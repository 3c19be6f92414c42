"""Peak memory of one process: ``python -m refnet.bench.peak REQUEST``, where REQUEST is JSON.

It runs a net forward and backward once, by refnet, in any arithmetic, or by a peer, and prints as JSON how
large the process was before (packages imported, parameters and input drawn) and at its largest, in bytes.
"""

import json
import resource
import sys
from pathlib import Path

import psutil

from refnet.arithmetic import find_arithmetic
from refnet.bench import own
from refnet.bench.peers import PEERS
from refnet.bench.threads import limited
from refnet.inputs import fill
from refnet.networks import build

STATUS = Path("/proc/self/status")


def largest() -> int:
    """The most memory that this process ever held.

    Linux counts in `ru_maxrss` what the parent held when it started this one; its own mark does not.
    """
    try:
        (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(request: str) -> None:
    """Do as requested."""
    found = json.loads(request)
    net = build(found["architecture"], input=found["input"], **found["options"])
    given = fill.params(net, dtype=found["dtype"]) | fill.inputs(net, dtype=found["dtype"])
    dys = fill.output_gradients(net, dtype=found["dtype"])
    train = None if found["peer"] is None else PEERS[found["peer"]].train
    with limited(found["threads"]):
        if train is None:
            call = own.train(net, given, dys, find_arithmetic(found.get("arithmetic", "core")))
        else:
            call = train(found["threads"], net, given, dys)
        before = psutil.Process().memory_info().rss
        call()
    json.dump({"before": before, "peak": largest()}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
