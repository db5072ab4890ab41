"""Benchmarks: `python -m benchmarks.compare` compares with peers, `test_*.py` are pytest-benchmark suites."""
