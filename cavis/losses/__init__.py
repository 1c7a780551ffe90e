"""Losses: predictions and targets in, named terms out. They never import the model."""
