"""smp_features: a distributed feature store and popularity model for social-media posts, on Spark."""

__version__ = "0.1.0"
