"""Measures of the trained model that no stage waits for: t-SNE, movement of vectors, ridge scores."""
