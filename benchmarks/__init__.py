"""Benchmarks of pymlp beside its peers; see README.md."""
