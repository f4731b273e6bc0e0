"""Join features with labels and histories as known at the time: jobs/training_set.py --conf FILE [--set KEY=VALUE]…"""

from smp_features.cli import run_job

if __name__ == "__main__":
    run_job("training-set")
