"""The paper's table of a base and of runs, from their weights and the benchmarks' files."""
