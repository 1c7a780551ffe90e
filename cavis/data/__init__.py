"""Clips with what is annotated in them: data sets on disk, and the twins' world that is drawn on the fly."""
