"""Read the source into posts, labels, user_profiles, images and texts: jobs/ingest.py --conf FILE [--set KEY=VALUE]…"""

from smp_features.cli import run_job

if __name__ == "__main__":
    run_job("ingest")
