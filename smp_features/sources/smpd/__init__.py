"""The SMP Challenge's folder layout (SMPD)."""

from smp_features.sources.smpd.source import SmpdSource

__all__ = ["SmpdSource"]
