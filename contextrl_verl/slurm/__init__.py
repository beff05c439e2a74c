"""What recipes/slurm needs of Python: all nodes have joined Ray, and the job's configuration fits its allocation."""
