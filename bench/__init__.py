"""Benchmarks: `pytest --benchmark` for the parts, `python -m bench` for the whole beside its peers."""
