"""Bring post_features up to date: jobs/features.py --conf FILE [--set KEY=VALUE]…"""

from smp_features.cli import run_job

if __name__ == "__main__":
    run_job("features")
