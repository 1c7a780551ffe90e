"""Draw ``tracked.png``, the picture at the top of the README: an example clip above, what was tracked in it below.

Run from the repository's root: ``python docs/images/tracked.py``.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from cavis import OnlinePredictor, load_model, open_video
from cavis.visualization.overlay import OverlayStyle, render_frame

CLIP = Path("cavis/assets/examples/crossing.mp4")
COLUMNS, GAP = 4, 6


def main(out: Path) -> None:
    """Track the clip and write the picture."""
    with open_video(CLIP) as video:
        result = OnlinePredictor(load_model("tiny")).run(video).filter(min_score=0.3)
        moments = np.linspace(0, len(video) - 1, COLUMNS).round().astype(int)
        style = OverlayStyle(score=False)
        columns = [np.vstack((video[t], render_frame(video[t], result, t, style))) for t in moments.tolist()]
    gap = np.full((columns[0].shape[0], GAP, 3), 255, np.uint8)
    Image.fromarray(np.hstack([part for column in columns for part in (column, gap)][:-1])).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("tracked.png"))
