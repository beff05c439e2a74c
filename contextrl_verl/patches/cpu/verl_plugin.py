"""The ``verl.plugins`` entry point: verl imports this module at every ``import verl``, in every process.

Importing it costs nothing: only ``os`` and ``sys`` are used, and nothing is patched or registered. One thing changes
that: with ``VERL_PLATFORM=cpu`` in the environment it switches on ``contextrl_verl.patches.cpu`` (the platform that
verl does not have, and the shims that verl and vLLM need to run without an accelerator). At that moment verl has just
imported torch, and no platform has been chosen yet, so this is the one place that is both early enough and cheap.

The engine and the agent loops are *not* registered here. verl logs an exception of an entry point at DEBUG level and
trains on without the plugin; ``contextrl_verl.grpo.register``, which a run names in
``actor_rollout_ref.model.external_lib``, fails loudly instead. For the same reason a failure to switch on the CPU
platform is reported on stderr below before it is handed to verl.
"""

import sys

from contextrl_verl.patches.cpu.environment import cpu_selected


def _activate_cpu() -> None:
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


if cpu_selected():
    _activate_cpu()
