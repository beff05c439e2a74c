"""The ``verl.plugins`` entry point: verl imports this module at every ``import verl``, in every process.

That costs nothing, unless ``VERL_PLATFORM=cpu`` switches on ``contextrl_verl.patches.cpu``. At that moment verl has
just imported torch, and no platform has been chosen yet.

The engine and the agent loops are *not* registered here: verl logs an exception of an entry point at DEBUG level and
trains on without the plugin, whereas ``contextrl_verl.grpo.register`` fails loudly. For the same reason a failure to
switch on the CPU platform is reported on stderr before it is handed to verl.
"""

import sys

from contextrl_verl.patches.cpu.environment import cpu_selected

if cpu_selected():
    try:
        from contextrl_verl.patches.cpu import activate

        activate()
    except Exception as error:
        print(
            "contextrl-verl: VERL_PLATFORM=cpu is set, but the CPU platform could not be switched on, "
            f"so verl will not run on this machine's CPU: {type(error).__name__}: {error}",
            file=sys.stderr,
            flush=True,
        )
        raise
