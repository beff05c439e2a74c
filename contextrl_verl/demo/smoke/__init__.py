"""A recipe's rehearsal: a tiny random model of the same architecture, tiny data, two real steps on a CPU."""
