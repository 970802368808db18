"""What the benchmarks of speed have in common: models and batches, rounds, the terminal, tables."""
