"""Measurements behind the figures of this project; `python -m benchmarks` runs them and renders RESULTS.md."""
