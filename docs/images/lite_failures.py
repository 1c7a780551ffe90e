"""Draw what `lite` gets wrong, as silhouettes: the pictures themselves must not be passed on.

``python docs/images/lite_failures.py pictures/val.json`` writes ``lite_failures.png`` beside this file: for each class
the large objects of the validation pictures that were found worst; above what is there, below what was found.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cavis import OnlinePredictor, load_model, rle
from cavis.data.opening import open_annotated
from cavis.records import Track, VideoResult

WIDTH, HEIGHT = 220, 165
CLASSES = ("person", "cat", "car", "bicycle", "motorcycle")
LARGE = 0.05
"""Of a picture's pixels."""
PAPER, OTHERS, TRUTH, FOUND = (250, 250, 250), (210, 214, 220), (30, 90, 180), (210, 110, 30)


def main() -> None:
    """Find the failures and draw them."""
    dataset = open_annotated(sys.argv[1])
    predictor = OnlinePredictor(load_model("lite"))
    worst: dict[str, tuple[float, Image.Image]] = {}
    for index in range(len(dataset)):
        clip = dataset.clip(index, [0])
        result = predictor.run([clip.frames[0].permute(1, 2, 0).numpy()]).filter(min_score=0.3)
        masks = clip.targets.masks[:, 0].numpy()
        for label, mask in zip(clip.targets.labels.tolist(), masks, strict=True):
            name = dataset.names[label]
            if name not in CLASSES or mask.mean() < LARGE:
                continue
            overlap, track = nearest(result, mask)
            if name not in worst or overlap < worst[name][0]:
                worst[name] = overlap, column(masks, mask, result, f"{name}: IoU {overlap:.2f}", track)
    sheet = Image.new("RGB", (WIDTH * len(worst), 2 * HEIGHT + 24), PAPER)
    for place, name in enumerate(name for name in CLASSES if name in worst):
        sheet.paste(worst[name][1], (place * WIDTH, 0))
    sheet.quantize(32).save(Path(__file__).with_suffix(".png"), optimize=True)


def nearest(result: VideoResult, mask: np.ndarray) -> tuple[float, int | None]:
    """IoU of the track that covers an object best, and the track; its class does not count."""
    overlaps = [(iou(decoded(track, mask.shape), mask), track.id) for track in result.tracks]
    overlap, track = max(overlaps, default=(0.0, None))
    return overlap, track if overlap else None


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Of two masks."""
    return float((one & other).sum() / max((one | other).sum(), 1))


def decoded(track: Track, shape: tuple[int, int]) -> np.ndarray:
    """A track's mask in the only frame."""
    return rle.decode(track.masks[0]).astype(bool) if track.masks[0] else np.zeros(shape, bool)


def column(masks: np.ndarray, mask: np.ndarray, result: VideoResult, title: str, nearest: int | None) -> Image.Image:
    """Above the truth, below what was found."""
    truth = paint([(other, OTHERS) for other in masks] + [(mask, TRUTH)], mask.shape)
    tracks = sorted(result.tracks, key=lambda track: track.id == nearest)
    found = paint([(decoded(t, mask.shape), FOUND if t.id == nearest else OTHERS) for t in tracks], mask.shape)
    whole = Image.new("RGB", (WIDTH, 2 * HEIGHT + 24), PAPER)
    whole.paste(truth, (0, 24))
    whole.paste(found, (0, 24 + HEIGHT))
    ImageDraw.Draw(whole).text((6, 6), title, fill=(40, 40, 40))
    return whole


def paint(layers: list[tuple[np.ndarray, tuple[int, int, int]]], shape: tuple[int, int]) -> Image.Image:
    """Flat silhouettes, one over the other."""
    canvas = np.full((*shape, 3), 255, np.uint8)
    for mask, colour in layers:
        canvas[mask.astype(bool)] = colour
    picture = Image.fromarray(canvas)
    picture.thumbnail((WIDTH - 6, HEIGHT - 6))
    framed = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    framed.paste(picture, ((WIDTH - picture.width) // 2, (HEIGHT - picture.height) // 2))
    return framed


if __name__ == "__main__":
    main()
