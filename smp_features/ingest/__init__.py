"""The stage `ingest`: a source becomes posts, labels, user profiles, images and texts."""
