"""Work-arounds for faults of verl and vLLM, one to a file: what blocks, and when the file may go."""
