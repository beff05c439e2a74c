"""``python -m contextrl_verl.slurm.wait NODE ...``: until every named node has joined the cluster of RAY_ADDRESS."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any


def joined(nodes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Name -> GPUs of the nodes that are alive, from ``ray.nodes()``."""
    return {node["NodeName"]: node["Resources"].get("GPU", 0) for node in nodes if node["Alive"]}


def problem(found: Mapping[str, float], names: Sequence[str], gpus: int, seconds: float, logs: str) -> str:
    """What is wrong with the nodes that are there, or an empty string."""
    missing = [name for name in names if name not in found]
    if missing:
        return (
            f"{len(names) - len(missing)} of {len(names)} nodes have joined Ray within {seconds:.0f} s; missing: "
            f"{', '.join(missing)}. Fix: read {logs}/node-{missing[0]}.log; where its Ray started, the nodes do not "
            "reach each other: set INTERFACE to a network they share, or raise JOIN_SECONDS."
        )
    short = [f"{name} has {found[name]:g}" for name in names if found[name] != gpus]
    told = (
        f"trainer.n_gpus_per_node is {gpus}, and Ray counts other numbers of GPUs: {', '.join(short)}. "
        "Fix: GPUS_PER_NODE, GPU_OPTION, or leave the broken node out with SBATCH_ARGS=--exclude=NODE."
    )
    return told if short else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", help="as given to ray start --node-name")
    parser.add_argument("--gpus-per-node", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--logs", default="the logs", help="folder of the nodes' logs, for the message")
    options = parser.parse_args()

    import ray

    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    deadline = time.monotonic() + options.seconds
    while not set(options.names) <= set(found := joined(ray.nodes())) and time.monotonic() < deadline:
        time.sleep(0.5)
    ray.shutdown()
    wrong = problem(found, options.names, options.gpus_per_node, options.seconds, options.logs)
    if wrong:
        print(f"contextrl slurm: {wrong}", file=sys.stderr)
        return 1
    print(f"contextrl slurm: all nodes have joined Ray: {', '.join(f'{n} ({found[n]:g} GPUs)' for n in options.names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
