"""The model as Figure 2 draws it: a segmenter, and something that links its frames."""

from jaxtyping import Shaped
from torch import Tensor, nn

from cavis.model.association import FrameLinker
from cavis.model.refiner import Refiner
from cavis.model.segmenter import Segmenter
from cavis.model.tracker import Tracker
from cavis.records import ClipPrediction, FramePrediction, TrackerState


class Cavis(nn.Module):
    """Segmenter, tracker and refiner, as far as the stages have come.

    Without a tracker (after the segmenter stage) frames are linked one to the next. The refiner looks at a whole video
    at once, so it is not part of :meth:`forward`; :class:`cavis.inference.offline.OfflinePredictor` runs it.
    """

    def __init__(
        self, segmenter: Segmenter, linker: FrameLinker, tracker: Tracker | None, refiner: Refiner | None = None
    ) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.tracker = tracker
        self.refiner = refiner
        self.linker = linker

    def forward(
        self, images: Shaped[Tensor, "B T 3 H W"], state: TrackerState | None = None
    ) -> tuple[ClipPrediction, TrackerState]:
        """Segment and track a window of frames (RGB, 0 ... 255); ``state`` continues an earlier window."""
        return self.track(self.segmenter(images), state)

    def track(self, frames: FramePrediction, state: TrackerState | None = None) -> tuple[ClipPrediction, TrackerState]:
        """Link segmented frames to tracks."""
        if self.tracker is None:
            return self.linker(frames, state)
        return self.tracker(frames, state, context_mlp=self.segmenter.context_mlp)
