"""Milliseconds that the plugin adds to ``import verl``, beside verl's own import in the same interpreters.

verl loads every ``verl.plugins`` entry point when it is imported, in every process of a job. Fresh interpreters, with
and without the plugin in turns, so that the file cache and the machine's load are the same for both.

Usage: python -m bench.import_cost [pairs of interpreters, 7]
"""

from __future__ import annotations

import sys
from statistics import median

from bench.common import fresh, median_ratio

# verl finds plugins by entry points; hiding ours leaves everything else in place.
_CODE = """
import importlib, importlib.metadata, json, sys, time
if sys.argv[1] == "without":
    real = importlib.metadata.entry_points
    def entry_points(**wanted):
        found = real(**wanted)
        if wanted.get("group") == "verl.plugins":
            found = importlib.metadata.EntryPoints(point for point in found if point.name != "contextrl")
        return found
    importlib.metadata.entry_points = entry_points
start = time.perf_counter()
importlib.import_module("contextrl_verl.patches.cpu.verl_plugin" if sys.argv[1] == "alone" else "verl")
whole = time.perf_counter() - start
assert ("contextrl_verl.patches.cpu.verl_plugin" in sys.modules) == (sys.argv[1] != "without"), sys.argv[1]
print(json.dumps(whole * 1e3))
"""
_NAMES = {
    "without": "import verl without the plugin",
    "with": "import verl with the plugin",
    "alone": "the plugin alone",
}


def main() -> None:
    """Print medians, and the ratio of the plugin alone to verl's own import."""
    times: dict[str, list[float]] = {how: [] for how in _NAMES}
    for number in range(1 + int(sys.argv[1] if len(sys.argv) > 1 else 7)):
        for how, found in times.items():
            # Off the CPU platform: there the plugin's shims are wanted, and are no overhead.
            took = fresh("-c", _CODE, how, without=["VERL_PLATFORM"])
            if number:  # the first round fills the file cache
                found.append(took)
    for how, name in _NAMES.items():
        print(f"{name:<32}{median(times[how]):9.1f} ms  ({min(times[how]):.1f} to {max(times[how]):.1f})")
    ratio = median_ratio(times["without"], times["alone"])
    print(f"plugin alone / verl's own import  {ratio.value:.5f} ({ratio.low:.5f} to {ratio.high:.5f})")


if __name__ == "__main__":
    main()
