"""Readers of the layouts that posts arrive in."""
