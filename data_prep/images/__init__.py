"""Image pairs: two pictures that look alike and answer one question differently (paper, sections 1.3 and 8.2)."""
