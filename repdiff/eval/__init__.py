"""Metrics with intervals and tests, and the floors that any model must clear."""
