"""Pictures of results: colours, overlays on frames, thumbnails, timelines."""
