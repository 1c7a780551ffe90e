"""Running a model on a video, frame by frame."""
