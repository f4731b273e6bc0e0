"""From a pinned snapshot of features to a validated, registered model."""
