"""Scores posts with the champion, writes submissions, evaluates them."""
