"""Manifests, tar shards, batches, mixtures and data set recipes. Knows nothing of models."""
