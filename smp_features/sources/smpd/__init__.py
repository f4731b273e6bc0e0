"""The SMP Challenge's folder layout (SMPD)."""
