"""The clips that come with the page, and their results, computed beforehand.

``python -m cavis.demo.examples`` makes them again: the clips from their seeds, the results with the laboratory's model.
Run it whenever its weights change.
"""

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path

from PIL import Image

from cavis.checkpoints.files import write_atomically
from cavis.checkpoints.hub import find_model, load_model
from cavis.data.synthetic import TwinsClip, TwinsConfig
from cavis.demo.exports import draw_video, load_result, save_result
from cavis.demo.jobs import Job
from cavis.demo.viewer import View, picture
from cavis.inference.online import OnlinePredictor
from cavis.presets import LABORATORY_MODEL
from cavis.video import VideoInfo, VideoWriter, probe

FOLDER = Path(str(files("cavis"))) / "assets" / "examples"
INDEX = "index.json"
_FPS = 10
_WORLD = TwinsConfig(height=320, width=480, frames=40, noise=(0.0, 0.006), blur=(0.0, 0.4), camera_motion=(0.0, 0.4))


@dataclass(frozen=True)
class Recipe:
    """How a shipped clip is made."""

    name: str
    title: str
    seed: int
    config: TwinsConfig


RECIPES = (
    Recipe(
        "crossing",
        "Twins that cross",
        11,
        replace(_WORLD, through=1.0, hidden_crossings=0.0, singles=(0, 0), obstacles=(0, 0)),
    ),
    Recipe("hiding", "Twins that meet behind something", 5, replace(_WORLD, hidden_crossings=1.0, singles=(0, 0))),
    Recipe("crowd", "Twins in a crowd", 23, replace(_WORLD, singles=(2, 2), camera_motion=(0.6, 1.0))),
)


@dataclass(frozen=True)
class Example:
    """A shipped clip."""

    name: str
    title: str
    info: VideoInfo


class Shelf:
    """The shipped clips with their results."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        self.model: str = index["model"]
        """The model that computed the results."""
        self.weights: str = index["weights"]
        """Fingerprint of its weights, see :func:`fingerprint`."""
        self.examples = tuple(
            Example(entry["name"], entry["title"], VideoInfo(**entry["info"])) for entry in index["examples"]
        )

    def poster(self, example: Example) -> Path:
        """A picture of the clip with its tracks."""
        return self._folder / f"{example.name}.jpg"

    def clip(self, example: Example) -> Path:
        """The clip itself."""
        return self._folder / f"{example.name}.mp4"

    def put(self, index: int, job: Job) -> Example:
        """Give a job a shipped clip and its result; an IndexError if there is none of that number."""
        if not 0 <= index < len(self.examples):
            raise IndexError(f"expected an example between 0 and {len(self.examples) - 1}, got {index}")
        example = self.examples[index]
        job.upload = job.folder / "example.mp4"
        shutil.copyfile(self.clip(example), job.upload)
        shutil.copyfile(self.clip(example), job.clip)
        job.video = job.fresh("video") / "tracked.mp4"
        shutil.copyfile(self._folder / f"{example.name}.tracked.mp4", job.video)
        job.info, job.example = example.info, example.title
        job.result = load_result(self._folder / f"{example.name}.json")
        return example


def fingerprint(model: str) -> str:
    """The SHA-256 of a model's file."""
    return hashlib.sha256(find_model(model).read_bytes()).hexdigest()


def make(folder: Path = FOLDER, model: str = LABORATORY_MODEL, recipes: tuple[Recipe, ...] = RECIPES) -> None:
    """Make the clips and compute their results; ``folder`` appears whole or stays as it was."""
    predictor = OnlinePredictor(load_model(model, device="cpu"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".examples-", dir=folder.parent) as workshop:
        done = Path(workshop) / "done"
        done.mkdir()
        infos = [_make_one(done, recipe, predictor) for recipe in recipes]
        index = {
            "model": predictor.ready.about.name,
            "weights": fingerprint(model),
            "examples": [
                {"name": recipe.name, "title": recipe.title, "info": asdict(info)}
                for recipe, info in zip(recipes, infos, strict=True)
            ],
        }
        text = json.dumps(index, indent=1) + "\n"
        write_atomically(done / INDEX, lambda path: _write_text(path, text))
        shutil.rmtree(folder, ignore_errors=True)
        done.replace(folder)


def _make_one(folder: Path, recipe: Recipe, predictor: OnlinePredictor) -> VideoInfo:
    path = folder / f"{recipe.name}.mp4"
    clip = TwinsClip(recipe.seed, recipe.config)
    with VideoWriter(path, recipe.config.height, recipe.config.width, fps=_FPS, crf=27) as writer:
        for t in range(len(clip)):
            writer.write(clip.render(t)[0])
    with tempfile.TemporaryDirectory() as workshop:
        job = Job(recipe.name, None, Path(workshop))
        shutil.copyfile(path, job.clip)
        source = job.source()
        job.result = predictor.run(source)
        save_result(folder / f"{recipe.name}.json", job.result)
        job.result = load_result(folder / f"{recipe.name}.json")
        video = draw_video(job, View(), lambda done: None, crf=28)
        shutil.copyfile(video, folder / f"{recipe.name}.tracked.mp4")
        poster = Image.fromarray(picture(job, View(drawn=("masks",)), len(source) // 3))
        poster.save(folder / f"{recipe.name}.jpg", quality=82)
        job.forget_clip()
    return probe(path)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    make()
    print(f"{FOLDER}: " + ", ".join(f"{path.name} {path.stat().st_size / 1e3:.0f} kB" for path in FOLDER.iterdir()))
