"""Tests of pymlp; a package so that test modules share the oracle, the cases and the generators."""
