"""Benchmarks of Gaussian processes: accuracy by training set size, and speed against peers."""
