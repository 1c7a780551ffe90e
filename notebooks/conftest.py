"""Notebooks are tested in their fast mode."""

import os

os.environ.setdefault("CAVIS_FAST", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
