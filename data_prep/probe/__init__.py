"""How well a model selects the context that supports an answer: any model, asked as in training."""
