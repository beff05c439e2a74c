"""What plugs into verl's GRPO trainer, each file under verl's own name for the place."""
