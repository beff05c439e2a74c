"""verl imports this while ``submit.sh`` composes a configuration: a trainer without ``--cfg`` must not start there."""

import sys

if "--cfg" not in sys.orig_argv:
    for module in sys.orig_argv:
        # Other programs of a recipe import verl too.
        if module.startswith("verl.trainer."):
            sys.exit(
                f"contextrl slurm: the recipe started {module} without the arguments that it was given, so it would "
                'train on this node. Fix: "$@" at the end of the command that starts the trainer in RECIPE.'
            )
