"""Train, and register a model unless this training set has one: jobs/train.py --conf FILE [--set KEY=VALUE]…"""

from smp_features.cli import run_job

if __name__ == "__main__":
    run_job("train")
