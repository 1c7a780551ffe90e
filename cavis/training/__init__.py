"""Training: the stages as data, one loop for all of them."""
