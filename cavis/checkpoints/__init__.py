"""Weights on disk: what a checkpoint holds, and how a name becomes a model."""
