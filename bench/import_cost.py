"""Milliseconds that the plugin adds to ``import verl``, beside verl's own import in the same interpreters.

verl loads every ``verl.plugins`` entry point when it is imported, in every process of a job. Fresh interpreters, with
and without the plugin in turns, so that the file cache and the machine's load are the same for both.

Usage: python bench/import_cost.py [pairs of interpreters, 7]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

# verl finds plugins by entry points; hiding ours leaves everything else in place.
_CODE = """
import importlib.metadata, json, sys, time
if sys.argv[1] == "without":
    real = importlib.metadata.entry_points
    def entry_points(**wanted):
        found = real(**wanted)
        if wanted.get("group") == "verl.plugins":
            found = importlib.metadata.EntryPoints(point for point in found if point.name != "contextrl")
        return found
    importlib.metadata.entry_points = entry_points
start = time.perf_counter()
import verl
whole = time.perf_counter() - start
assert ("contextrl_verl.patches.cpu.verl_plugin" in sys.modules) == (sys.argv[1] == "with"), sys.argv[1]
print(json.dumps(whole * 1e3))
"""
_ALONE = """
import json, time
start = time.perf_counter()
import contextrl_verl.patches.cpu.verl_plugin
print(json.dumps((time.perf_counter() - start) * 1e3))
"""


def measure(code: str, *arguments: str) -> float:
    """Milliseconds that a fresh interpreter prints last."""
    # Off the CPU platform: there the plugin's shims are wanted, and are no overhead.
    environment = {key: value for key, value in os.environ.items() if key != "VERL_PLATFORM"}
    command = [sys.executable, "-c", code, *arguments]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return json.loads(printed.splitlines()[-1])


def main() -> None:
    """Print medians, their difference, the plugin alone, and the ratio to verl's own import."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    measure(_CODE, "with")  # fills the file cache
    without, with_plugin, alone = [], [], []
    for _ in range(rounds):
        without.append(measure(_CODE, "without"))
        with_plugin.append(measure(_CODE, "with"))
        alone.append(measure(_ALONE))
    own, plugin = statistics.median(without), statistics.median(alone)
    print(f"import verl without the plugin    {own:9.1f} ms  ({min(without):.1f} to {max(without):.1f})")
    print(
        f"import verl with the plugin       {statistics.median(with_plugin):9.1f} ms  "
        f"({min(with_plugin):.1f} to {max(with_plugin):.1f})"
    )
    print(f"the plugin alone                  {plugin:9.1f} ms  ({min(alone):.1f} to {max(alone):.1f})")
    print(f"plugin alone / verl's own import  {plugin / own:9.5f}")


if __name__ == "__main__":
    main()
