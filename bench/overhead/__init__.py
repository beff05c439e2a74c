"""What pairs cost: the step time of GRPO with and without them, the tokens, and the paper's released schedules."""
