"""Measuring models: probes, protocols, metrics and their intervals."""
