"""Caption, embed and score what has no row yet: jobs/extract.py [NAME…] --conf FILE [--set KEY=VALUE]…"""

from smp_features.cli import run_job

if __name__ == "__main__":
    run_job("extract")
