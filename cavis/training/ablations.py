"""Table 3 as an experiment to repeat: arms that differ in one thing, trained from one checkpoint on the same clips.

All arms of a stage start from the weights of ``tiny`` (what an arm has no place for is left out, what it needs in
addition is new), see the same clips and random points in the same order, and are measured on the same clips. So the
comparison is paired; how sure it is, :func:`compare` says. What it cannot take away: ``tiny`` has been trained as the
baseline is, so arms that change the network have to unlearn first.
"""

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float

from cavis import rle
from cavis.checkpoints.files import ModelFile, read_model_file, write_atomically
from cavis.checkpoints.hub import ReadyModel, find_model
from cavis.config import Preset, Stage, StageConfig
from cavis.data.loaders import TwinsSource
from cavis.data.synthetic import TwinsClip, TwinsConfig, clip_seed
from cavis.evaluation.average_precision import GroundTruthTrack, PredictedTrack, average_precision
from cavis.evaluation.bootstrap import Interval, bootstrap
from cavis.evaluation.tracking import tracking_metrics
from cavis.inference.online import OnlinePredictor
from cavis.model import Cavis, build_model
from cavis.presets import LABORATORY_MODEL, tiny
from cavis.records import VideoResult
from cavis.training.log import StepReport
from cavis.training.loop import Run, train
from cavis.training.start import schedule_of

MEASURES = ("ap", "idf1", "switches", "twin_idf1", "twin_switches")


@dataclass(frozen=True)
class Arm:
    """One row of Table 3: what is changed, and what the paper got."""

    name: str
    table: str
    stage: Stage
    change: Callable[[Preset], Preset]
    paper: float | None
    """AP of the paper (OVIS, ResNet-50); None where the paper has no such row."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all arms share."""

    steps: int = 60
    clips: int = 8
    """How many clips are measured."""
    frames: int = 24
    """Of each measured clip."""
    learning_rate: float = 2e-4
    seed: int = 0


@dataclass(frozen=True)
class ClipScore:
    """One model on one clip; AP and IDF1 are fractions, NaN where there is nothing to find."""

    ap: float
    idf1: float
    switches: float
    twin_idf1: float
    """IDF1 of the twins alone, and so on: these can be compared with a clip that has no companions."""
    twin_switches: float


@dataclass(frozen=True)
class ArmResult:
    """One arm after its training."""

    arm: str
    plan: Plan
    scores: tuple[ClipScore, ...]
    """One entry a clip."""
    without_companions: tuple[ClipScore, ...]
    """The same clips, companions taken away."""

    def values(self, measure: str, *, companions: bool = True) -> Float[np.ndarray, "clips"]:
        """One measure, clip by clip."""
        return np.array([getattr(one, measure) for one in (self.scores if companions else self.without_companions)])


class ArmStep(NamedTuple):
    """What a training panel shows of a run over several arms."""

    step: int
    steps: int
    loss: float
    """NaN where nothing was left to train, only to measure."""
    terms: dict[str, float]
    learning_rate: float
    clips: int
    note: str


class Comparison(NamedTuple):
    """An arm against the baseline, one measure."""

    arm: str
    measure: str
    value: float
    baseline: float
    difference: Interval
    plan: Plan


def _reading(**changes: Any) -> Callable[[Preset], Preset]:
    return lambda preset: replace(preset, model=replace(preset.model, reading=replace(preset.model.reading, **changes)))


def _losses(context: str, context_weight: float, prototype_weight: float) -> Callable[[Preset], Preset]:
    return lambda preset: replace(
        _reading(context=context)(preset),
        loss=replace(preset.loss, context_weight=context_weight, prototype_weight=prototype_weight),
    )


def _frames(frames: int) -> Callable[[Preset], Preset]:
    return lambda preset: replace(preset, segmenter=replace(preset.segmenter, frames=frames))


BASELINES: dict[Stage, str] = {"segmenter": "segmenter as it is", "tracker": "tracker as it is"}
ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("segmenter as it is", "a (vi), b 9, c 2, d average", "segmenter", lambda preset: preset, 29.5),
        Arm("no contrast", "a (i)", "segmenter", _losses("none", 0.0, 0.0), 26.4),
        Arm("contrast of core features", "a (ii)", "segmenter", _losses("none", 2.0, 0.0), 27.9),
        Arm("L_CTX, no L_PCC", "a (iii)", "segmenter", _losses("per_channel", 2.0, 0.0), 29.1),
        Arm("L_PCC alone", "a (iv)", "segmenter", _losses("none", 0.0, 2.0), 27.6),
        Arm("contrast of core features, L_PCC", "a (v)", "segmenter", _losses("none", 2.0, 2.0), 28.3),
        Arm("filter 3", "b", "segmenter", _reading(context_filter_size=3), 27.3),
        Arm("filter 5", "b", "segmenter", _reading(context_filter_size=5), 28.3),
        Arm("filter 7", "b", "segmenter", _reading(context_filter_size=7), 28.7),
        Arm("filter 11", "b", "segmenter", _reading(context_filter_size=11), 28.9),
        Arm("3 frames", "c", "segmenter", _frames(3), 30.0),
        Arm("4 frames", "c", "segmenter", _frames(4), 28.7),
        Arm("learnable filter", "d", "segmenter", _reading(context="learnable"), 28.4),
        Arm("channel sum, as released", "-", "segmenter", _reading(context="channel_sum"), None),
        Arm("tracker as it is", "e Q, f yes", "tracker", lambda preset: preset, 36.1),
        Arm("core query", "e", "tracker", _reading(tracker_query="core"), 34.4),
        Arm("context not aligned", "f", "tracker", _reading(alignment="none"), 32.8),
        Arm("alignment inverted, as released", "-", "tracker", _reading(alignment="inverted"), None),
    )
}


def run_arms(names: Sequence[str], plan: Plan, folder: Path) -> Iterator[ArmStep]:
    """Train and measure arms one after the other, each with its baseline; results go to ``folder``.

    An arm that has a result of the same plan is not trained again, and one that was stopped goes on where it was (a
    measurement begins anew). While an arm is measured, its last step comes once more after each clip. A ValueError
    names an arm there is not.
    """
    arms = with_baselines(names)
    for index, arm in enumerate(arms):
        if find_result(folder, arm.name, plan) is not None:
            continue
        with closing(_run_arm(arm, plan, folder)) as steps:  # whoever stops is told here what goes wrong then
            for step in steps:
                note = f"arm {index + 1} of {len(arms)}: {step.note}"
                yield step._replace(step=index * plan.steps + step.step, steps=len(arms) * plan.steps, note=note)


def _run_arm(arm: Arm, plan: Plan, folder: Path) -> Generator[ArmStep]:
    preset = arm.change(tiny())
    model = common_start(preset, arm.stage, plan.seed)
    run = Run(
        preset=preset,
        stage=arm.stage,
        schedule=_schedule(preset, arm.stage, plan),
        seed=plan.seed,
        folder=folder / _slug(arm.name, plan),
        checkpoint_every=50,
        workers=0,
    )
    run.folder.mkdir(parents=True, exist_ok=True)
    clips = run.schedule.clips_per_step
    last = ArmStep(plan.steps, plan.steps, float("nan"), {}, plan.learning_rate, clips, arm.name)
    with closing(cast("Generator[StepReport]", train(run, model, TwinsSource()))) as reports:
        for report in reports:
            numbers = (report.step, plan.steps, report.loss, report.terms, report.learning_rate)
            last = ArmStep(*numbers, clips, arm.name)
            yield last
    scores: list[ClipScore] = []
    for score in measure_arm(arm, model, preset, plan):
        scores.append(score)
        if len(scores) == 2 * plan.clips:
            write_result(folder, ArmResult(arm.name, plan, tuple(scores[: plan.clips]), tuple(scores[plan.clips :])))
        yield last._replace(note=f"{arm.name}, measured {len(scores)} of {2 * plan.clips} clips")


def with_baselines(names: Sequence[str]) -> list[Arm]:
    """The arms of these names, those they are compared with first; a ValueError names an unknown one."""
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise ValueError(f"expected arms out of {', '.join(ARMS)}; got {', '.join(unknown)}")
    chosen = [ARMS[name] for name in names]
    wanted = [ARMS[BASELINES[arm.stage]] for arm in chosen]
    return list({arm.name: arm for arm in (*wanted, *chosen)}.values())


def common_start(preset: Preset, stage: Stage, seed: int) -> Cavis:
    """The model of an arm with all weights of ``tiny`` that fit; the others are drawn from the seed."""
    torch.manual_seed(seed)
    model = build_model(preset.model, stage)
    _, state = read_model_file(find_model(LABORATORY_MODEL))
    own = model.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    model.load_state_dict({key: value.to(own[key].dtype) for key, value in fitting.items()}, strict=False)
    return model


def measure_arm(arm: Arm, model: Cavis, preset: Preset, plan: Plan) -> Iterator[ClipScore]:
    """Run a model over the measured clips, then over the same clips without companions."""
    model.eval()
    about = ModelFile(arm.name, preset.name, preset.model, arm.stage, "")
    predictor = OnlinePredictor(ReadyModel(model, about, preset.inference, ""))
    for companions in (True, False):
        config = TwinsConfig(frames=plan.frames, companions=companions)
        for i in range(plan.clips):
            yield score_clip(predictor, TwinsClip(clip_seed(plan.seed + 90_000, i), config))


def score_clip(predictor: OnlinePredictor, world: TwinsClip) -> ClipScore:
    """One clip: all objects, and the twins alone.

    IDF1 and switches are those of the best tracks, as many as the clip has objects. Arms differ in how high they score,
    which is no matter of identity: a score from which tracks count would leave one arm with many and another with none.
    """
    rendered = [world.render(t) for t in range(len(world))]
    result = predictor.run([picture for picture, _ in rendered])
    masks = np.stack([masks for _, masks in rendered])
    tracks = [
        GroundTruthTrack(1, int(label), tuple(rle.encode(m) if m.any() else None for m in masks[:, n]))
        for n, label in enumerate(world.labels)
    ]
    shown = [bool(masks[:, n].any()) for n in range(len(tracks))]
    everyone = [track for track, seen in zip(tracks, shown, strict=True) if seen]
    twins = [track for track, seen, twin in zip(tracks, shown, world.twin_of, strict=True) if seen and twin >= 0]
    ap = average_precision(everyone, _predictions(result)).ap if everyone else -1.0
    best = [PredictedTrack(1, one.label, one.score, one.masks) for one in result.filter(top_k=len(everyone)).tracks]
    whole, part = (tracking_metrics(some, best, min_score=0.0).combined for some in (everyone, twins))
    return ClipScore(
        ap=ap if ap >= 0 else float("nan"),
        idf1=whole.idf1 if everyone else float("nan"),
        switches=whole.identity_switches,
        twin_idf1=part.idf1 if twins else float("nan"),
        twin_switches=part.identity_switches,
    )


def compare(results: Sequence[ArmResult], measures: Sequence[str] = MEASURES) -> list[Comparison]:
    """Each arm against the baseline of its stage: mean difference over the clips, with a paired bootstrap interval.

    Arms without a baseline of the same plan among the results are left out.
    """
    known = {(result.arm, result.plan): result for result in results}
    rows = []
    for result in results:
        baseline = known.get((BASELINES[ARMS[result.arm].stage], result.plan))
        if baseline is None or baseline is result:
            continue
        for measure in measures:
            mine, other = result.values(measure), baseline.values(measure)
            if np.isfinite(mine - other).any():
                means = float(np.nanmean(mine)), float(np.nanmean(other))
                rows.append(Comparison(result.arm, measure, *means, bootstrap(mine - other), result.plan))
    return rows


def worth_of_companions(result: ArmResult, measure: str = "twin_idf1") -> Interval:
    """What companions are worth to the twins of a model: with them minus without, same clips, same seeds."""
    return bootstrap(result.values(measure) - result.values(measure, companions=False))


def write_result(folder: Path, result: ArmResult) -> None:
    """Write a result to ``folder``."""
    text = json.dumps(asdict(result), indent=1)
    path = folder / f"{_slug(result.arm, result.plan)}.json"
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def read_results(folder: Path) -> list[ArmResult]:
    """All results in a folder, those with most steps first; a ValueError names a file that is none."""
    results = [_read(path) for path in sorted(folder.glob("*.json"))]
    order = list(ARMS)
    return sorted(results, key=lambda result: (-result.plan.steps, order.index(result.arm)))


def find_result(folder: Path, arm: str, plan: Plan) -> ArmResult | None:
    """The result of an arm with this very plan, if there is one."""
    path = folder / f"{_slug(arm, plan)}.json"
    result = _read(path) if path.exists() else None
    return result if result and result.plan == plan else None


def _read(path: Path) -> ArmResult:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        scores, without = (tuple(ClipScore(**one) for one in data[key]) for key in ("scores", "without_companions"))
        if data["arm"] not in ARMS:
            raise ValueError(f"there is no arm {data['arm']!r}")
        return ArmResult(data["arm"], Plan(**data["plan"]), scores, without)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"expected the result of an arm in {path}, got something else ({error})") from error


def _schedule(preset: Preset, stage: Stage, plan: Plan) -> StageConfig:
    """Short: little warm-up, one drop of the learning rate for the last fifth."""
    schedule = schedule_of(preset, stage, plan.steps)
    clips, frames = (2, schedule.frames) if stage == "segmenter" else (1, min(schedule.frames, 8))
    return replace(
        schedule,
        clips_per_step=clips,
        frames=frames,
        learning_rate=plan.learning_rate,
        warmup=min(5, plan.steps),
        decay_at=(plan.steps * 4 // 5,),
    )


def _predictions(result: VideoResult) -> list[PredictedTrack]:
    count = len(result.tracks) * len(result.categories)
    return [PredictedTrack(1, label, score, track.masks) for track, label, score in result.predictions(min(count, 10))]


def _slug(arm: str, plan: Plan) -> str:
    words = "_".join("".join(c if c.isalnum() else " " for c in arm.lower()).split())
    numbers = "_".join(f"{getattr(plan, field.name):g}" for field in fields(plan))
    return f"{words}-{numbers}"


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
