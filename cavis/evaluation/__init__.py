"""Measuring results: YouTube-VIS average precision, from records or from a whole data set."""
