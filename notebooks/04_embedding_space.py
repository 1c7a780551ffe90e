# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: -all
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 · Embedding space
#
# A tracker recognises an object by its **embedding**: a list of numbers that should stay the same for one object and
# differ between objects. The hard case is two objects that look alike. The paper's idea is to let the embedding
# know what *surrounds* the object.
#
# Here you look at these embeddings, as the paper's **Figure 4** does, and then you measure what the picture suggests.
#
# | embedding | in the paper | contains |
# |---|---|---|
# | `core` | $\hat{Q}$, Eq. 5 | the object alone |
# | `context_embedding` | $Q$, Eq. 7 | the object and its surroundings |
# | `context_aware` | $[\hat{Q}; Q]$ | both side by side; this is what frames are associated by |
#
# The clips are of the *twins' world*: two pairs of identical things that cross and hide each other. Each twin has its
# own companion, so the surroundings do tell who is who.

# %%
import os
from itertools import product
from pathlib import Path

import ipywidgets as ipw
import numpy as np
import pandas as pd
from widgets import AssociationMatrix, EmbeddingMap, TrackPlayer

from cavis import OnlinePredictor, load_model
from cavis.analysis import (
    associate,
    collect,
    crop,
    difference,
    fast,
    mean_over_clips,
    row_numbers,
    separation,
    sightings,
    tsne,
    twins,
    vectors,
)
from cavis.data.synthetic import TwinsConfig

CLIPS = 2 if fast() else 12  # CAVIS_FAST=1 makes everything small
SEED = 2000  # of the clips; none of them was used in training
LEAST = 0.1  # score of the tracks that count: one of the models is unsure of its classes, and has no high scores

# %% [markdown]
# ## 1 · Models whose losses differ
#
# Figure 4 compares three methods. Here they are three siblings: one network went on learning three times, for the same
# number of steps, on the same clips, with the losses of one method each (commands and logs: `docs/experiments.md` of the
# project). `tiny` is the model that learned longest, by the losses of CAVIS; the maps of section 2 are its own.
#
# Two things to know before you compare them:
#
# - **None of them began without identity.** Backbone and pixel decoder of that network come from `tiny`, where they had
#   learned for 12,060 steps with the losses of CAVIS: L_CTX, and L_PCC on the very features F that all three read. Only
#   query decoder and heads had begun anew, and had learned without any loss on identity.
# - **"As CTVIS" is one idea of CTVIS**: Eq. 4 on core embeddings, in clips of 2 frames like those of the other two. The
#   real CTVIS learns from a larger number of frames at once, and keeps a memory bank; neither is here.

# %%
SIBLINGS = {  # and the embedding by which each method associates frames
    "tiny_minvis": ("as MinVIS: no loss on identity", "core"),
    "tiny_ctvis": ("as CTVIS: core embeddings of one object are pulled together", "core"),
    "tiny_cavis": ("as CAVIS: context-aware embeddings of one object are pulled together", "context_aware"),
}
for name, (what, layer) in SIBLINGS.items():
    print(f"{name:12} {what}; compared by {layer}")

# %% [markdown]
# Every model tracks every clip. One row of the table is one track in one frame; `identity` is the true object whose
# pixels the row shows (-1: none). The command line does the same: `cavis embed twins --out embeddings.parquet`.

# %%
clips = twins(CLIPS, SEED)
tables = {name: collect(load_model(name), clips, seed=SEED, min_score=LEAST) for name in ("tiny", *SIBLINGS)}
table = tables["tiny"]
table.drop(columns=["core", "context_aware"]).head()

# %% [markdown]
# ## 2 · The picture
#
# t-SNE puts rows with similar embeddings next to each other. Below is one clip, seen through two embeddings of the same
# model; a colour and shape is a true object.
#
# **Try it:** draw around some points in one map. They light up in the other one, pictures of some of them appear below the
# map, and the player goes to their frame. Resting on a point shows that one; choosing a track in the player lights up its points.

# %%
clip = clips[0]
here = table[table["clip"] == clip.name]
with clip.open() as video:
    frames = list(video)
truth = [clip.truth(t) for t in range(len(frames))]
names = {-1: "no object", **{i: f"{c} {i}" for one in truth for i, c in zip(one.ids, one.categories)}}
result = OnlinePredictor(load_model("tiny")).run(frames).filter(min_score=LEAST)


def picture_of(row):
    return crop(frames[here["frame"][row]], here.loc[row, ["x", "y", "width", "height"]].to_numpy(float))


def text_of(row):
    return f"{names[here['identity'][row]]}, frame {here['frame'][row]}, track {here['track'][row]}"


def draw(layer, perplexity=15, seed=0, metric="cosine"):
    return tsne(vectors(here, layer), perplexity=perplexity, seed=seed, metric=metric, layer=layer)


# %%
def made_by(some):
    return f"{some.attrs['model']} · twins, seed {SEED} · torch {some.attrs['versions']['torch']}"


made = made_by(table)
TITLES = {"core": "Core embeddings", "context_embedding": "Context embeddings (Q)"}
looks = {"names": names, "rows": here.index, "crops": picture_of, "describe": text_of}
drawn = {layer: draw(layer) for layer in TITLES}
maps = {
    layer: EmbeddingMap(
        drawn[layer].points, here["identity"], title=title, note=f"{drawn[layer].caption} · {made}", **looks
    )
    for layer, title in TITLES.items()
}

# %%
tracks = [track.id for track in result.tracks]
owners = [here.loc[here["track"] == track, "identity"].mode()[0] for track in tracks]
player = TrackPlayer(
    frames,
    [track.masks for track in result.tracks],
    names=[names[owner] for owner in owners],
    numbers=tracks,
    groups=owners,
    rows=row_numbers(table, clip.name, tracks, len(frames)),
    title="The clip and its tracks",
    note=made,
)
for view in (maps["context_embedding"], player):
    ipw.link((maps["core"], "selection"), (view, "selection"))

# %% [markdown]
# The sliders draw both maps anew. Watch what changes and what does not.

# %%
def slider(name, *limits):
    return ipw.IntSlider(*limits, description=name, continuous_update=False)


def choice(name, *options):
    return ipw.Dropdown(options=options, description=name)


def sliders(redraw):
    controls = [slider("perplexity", 15, 2, 50), slider("seed", 0, 0, 9), choice("metric", "cosine", "euclidean")]
    for control in controls:
        control.observe(lambda _: redraw(*(one.value for one in controls)), "value")
    return ipw.HBox(controls)


def redraw(*settings):
    for layer, view in maps.items():
        new = draw(layer, *settings)
        view.points, view.note = new.points, f"{new.caption} · {made}"


ipw.VBox([sliders(redraw), ipw.HBox(list(maps.values())), player])

# %% [markdown]
# ### What a t-SNE map does not show
#
# - **Distances between clumps** mean nothing, and neither do their sizes: t-SNE spreads out what is dense.
# - **Clumps can be made up.** At a small perplexity, noise falls into clumps too (slide to 2). Believe what stays at
#   several perplexities and seeds.
# - **A line of points is time.** Neighbouring frames have similar embeddings, so each track draws a curve of its own,
#   even if nothing in it knew the object again after it was hidden.
# - **Two maps are not comparable by position**, nor by how pretty they are. Compare numbers, below.
#
# ## 3 · Figure 4: three methods, one clip
#
# The same clip through the three siblings, each by the embedding that its method compares. A point is one true object
# in one frame, if that method found it there. Draw around a clump: the same objects in the same frames light up in the
# other two maps, and the player, which shows the true objects, goes there. Which of the maps has the clearest clumps?
# Decide before you read the numbers below, and see with the sliders whether you would always have decided so.


# %%
objects = sorted(set(names) - {-1})
labels = np.zeros((len(frames), *frames[0].shape[:2]), np.uint8)  # which object is where: 0 none, n the n-th
for t, one in enumerate(truth):
    for identity, mask in zip(one.ids, one.masks):
        labels[t][mask] = objects.index(identity) + 1


def number(identity, frame):
    return identity * len(frames) + frame  # of an object in a frame, the same in all maps


def true_crop(row):
    identity, t = divmod(row, len(frames))
    ys, xs = np.nonzero(labels[t] == objects.index(identity) + 1)
    return crop(frames[t], np.array([xs.min(), ys.min(), np.ptp(xs), np.ptp(ys)], float))


def true_text(row):
    return f"{names[row // len(frames)]}, frame {row % len(frames)}"


def draw_method(name, perplexity=15, seed=0, metric="cosine"):
    layer = SIBLINGS[name][1]
    return tsne(vectors(seen[name], layer), perplexity=perplexity, seed=seed, metric=metric, layer=layer)


def note_of(name, points):
    return f"{points.caption} · {made_by(tables[name])}"


def redraw_methods(*settings):
    for name, view in figure.items():
        new = draw_method(name, *settings)
        view.points, view.note = new.points, note_of(name, new)


# %%
seen = {name: sightings(tables[name], clip.name) for name in SIBLINGS}
drawn_methods = {name: draw_method(name) for name in SIBLINGS}
figure = {
    name: EmbeddingMap(
        drawn_methods[name].points,
        some["identity"],
        names=names,
        rows=number(some["identity"], some["frame"]),
        crops=true_crop,
        describe=true_text,
        title=f"{name}: {SIBLINGS[name][1]}",
        note=note_of(name, drawn_methods[name]),
    )
    for name, some in seen.items()
}

# %%
true_player = TrackPlayer(
    frames,
    labels,
    names=[names[one].rsplit(" ", 1)[0] for one in objects],  # without their numbers, which stand beside them
    numbers=objects,
    groups=objects,
    rows=number(np.array(objects)[:, None], np.arange(len(frames))),
    title="The clip and its true objects",
    note=f"twins, seed {SEED}",
)
for view in (*list(figure.values())[1:], true_player):
    ipw.link((figure["tiny_minvis"], "selection"), (view, "selection"))
ipw.VBox([sliders(redraw_methods), ipw.HBox(list(figure.values())), true_player])

# %% [markdown]
# ## 4 · The numbers
#
# Measured in all dimensions, by cosine, in each clip on its own:
#
# - **silhouette**: -1 to 1; 1 where the rows of each object are close together and far from all others;
# - **purity**: of the 5 nearest rows of a row, the share that show the same object.
#
# *Lookalikes* compares each twin with its own twin only: that is the hard case. *Far in time* asks for neighbours that
# are more than 8 frames away: not the frame before, in which everything looked the same anyway. Brackets: 95 %
# intervals over clips (none for fewer than five clips).

# %%
SETTINGS = {
    "all objects": {},
    "lookalikes": {"lookalikes": True},
    "lookalikes, far in time": {"lookalikes": True, "gap": 8},
}
LAYERS = ("core", "context_embedding", "context_aware")
layers_of = {name: LAYERS if name in ("tiny", "tiny_cavis") else ("core",) for name in tables}
measured = {
    (model, setting, layer): separation(tables[model], layer, **how)
    for model in tables
    for setting, how in SETTINGS.items()
    for layer in layers_of[model]
}
pd.DataFrame(
    [(*key, str(one.silhouette), str(one.purity)) for key, one in measured.items()],
    columns=["model", "compared", "embedding", "silhouette", "purity"],
)

# %% [markdown]
# Is one method better than another? Clip by clip, the difference of CAVIS and each of its siblings, each by the embedding
# that it compares. An interval with 0 in it is no answer.

# %%
advantages = {
    (name, setting): difference(
        measured["tiny_cavis", setting, "context_aware"], measured[name, setting, SIBLINGS[name][1]]
    )
    for name in ("tiny_minvis", "tiny_ctvis")
    for setting in SETTINGS
}
pd.DataFrame(
    [(f"CAVIS − {name}", setting, *map(str, gain)) for (name, setting), gain in advantages.items()],
    columns=["methods", "compared", "silhouette", "purity"],
)

# %% [markdown]
# Is the context embedding (Q) of `tiny` better than its core embedding (Q̂)? Again clip by clip:

# %%
gains = {
    setting: difference(measured["tiny", setting, "context_embedding"], measured["tiny", setting, "core"])
    for setting in SETTINGS
}
pd.DataFrame(
    [(setting, str(silhouette), str(purity)) for setting, (silhouette, purity) in gains.items()],
    columns=["compared", "silhouette: context − core", "purity: context − core"],
)

# %% [markdown]
# ## 5 · The same clips without companions
#
# `TwinsConfig(companions=False)` draws the same clips, but the twins are alone: nothing in their surroundings tells them
# apart any more. If the context is what helps, its advantage over the core embedding should shrink.

# %%
alone = collect(load_model("tiny"), twins(CLIPS, SEED, TwinsConfig(companions=False)), seed=SEED, min_score=LEAST)
worlds = {
    "with companions": {key: measured["tiny", *key] for key in product(SETTINGS, LAYERS)},
    "without": {key: separation(alone, key[1], **SETTINGS[key[0]]) for key in product(SETTINGS, LAYERS)},
}
rows = [
    (world, layer, str(some["lookalikes", layer].silhouette), str(some["lookalikes", layer].purity))
    for world, some in worlds.items()
    for layer in LAYERS
]
pd.DataFrame(rows, columns=["twins", "embedding", "silhouette (lookalikes)", "purity (lookalikes)"])

# %% [markdown]
# By how much is the context embedding ahead of the core embedding? The last column is the difference of the two before
# it, clip by clip: above 0 where companions are what helps.

# %%
def ahead(some, setting):
    context, core = some[setting, "context_embedding"], some[setting, "core"]
    return context.silhouettes - core.silhouettes, context.purities - core.purities


rows = []
for setting in SETTINGS:
    for what, there, gone in zip(("silhouette", "purity"), *(ahead(some, setting) for some in worlds.values())):
        rows.append((setting, what, *map(str, map(mean_over_clips, (there, gone, there - gone)))))
pd.DataFrame(rows, columns=["compared", "context − core", *worlds, "difference"])

# %% [markdown]
# ## 6 · Two frames, face to face
#
# Which track of this frame is which track of an earlier one? Cosines of the embeddings; Hungarian matching marks the
# pairs. Move the frames so far apart that twins have crossed in between. Click a cell to see both in the player.

# %%
first = ipw.IntSlider(4, 0, len(frames) - 1, description="first", continuous_update=False)
second = ipw.IntSlider(16, 0, len(frames) - 1, description="second", continuous_update=False)
layer = ipw.Dropdown(options=LAYERS, value="context_aware", description="embedding")


def face_to_face(rows):
    return [f"{names[i]} ({t})" for i, t in zip(here["identity"][rows], here["track"][rows])]


def compare(_=None):
    two = associate(table, clip.name, first.value, second.value, layer.value)
    words = (face_to_face(two.rows), face_to_face(two.columns))
    matrix.show(two.similarity, two.pairs, names=words, rows=(two.rows, two.columns))
    matrix.title, matrix.note = f"Frame {first.value} (rows), frame {second.value} (columns)", f"{layer.value} · {made}"


matrix = AssociationMatrix([[0.0]])
compare()
for control in (first, second, layer):
    control.observe(compare, "value")
ipw.link((maps["core"], "selection"), (matrix, "selection"))
ipw.VBox([ipw.HBox([first, second, layer]), matrix])

# %% [markdown]
# ## 7 · Keep the figure
#
# A saved picture says how it was made: embedding, metric, perplexity, seed and versions stand in it. These need no kernel,
# so they can also be read where the notebook is only looked at.

# %%
folder = Path(os.environ.get("CAVIS_RUNS", "runs")) / "04_embedding_space"
folder.mkdir(parents=True, exist_ok=True)
for what, view in {**maps, **figure, "player": player, "true_player": true_player, "matrix": matrix}.items():
    print(view.save(folder / f"{what}.svg"))
    display(view.still())

# %% [markdown]
# ## 8 · What the paper claims, what we measured, what differs
#
# - **The paper** (Figure 4, Sec. A.3): on one clip with three elephants, MinVIS tells objects apart less effectively,
#   CTVIS more clearly but with some overlaps, and CAVIS forms "much more distinct object clusters". It shows t-SNE maps of
#   one clip; layer, perplexity and seed are not given, and there are no numbers.
# - **Here**: the tables above, over many clips, with intervals. Look at the *lookalikes* rows before you believe the
#   picture: with all objects in it, telling a boat from a cat is enough for tight clumps.
# - **The three siblings**, in the 12 clips of the full notebook: CAVIS separates better than MinVIS (silhouette +0.031
#   [0.017, 0.045], lookalikes +0.055 [0.029, 0.080]). Beside CTVIS its silhouette is a little lower (−0.012 [−0.022,
#   −0.003]), of lookalikes undecided; of their neighbours far in time more are right (+0.042 [0.007, 0.085]). What the
#   maps do not show: `tiny_ctvis` pays with its classes. Its class loss ended at 2.12, those of the other two at 0.99 and
#   1.05: it must tell objects apart with the same numbers that say what they are, `tiny_cavis` has others for that.
#   Whether CTVIS itself pays, with its many frames and its memory, this does not say. One base, one seed, 1200 steps: a
#   longer training may say otherwise.
# - **Is the context embedding of `tiny` better than its core embedding?** By silhouette: +0.046 [0.019, 0.072], of
#   lookalikes +0.090 [0.043, 0.134]. By purity only for lookalikes far in time, +0.025 [0.007, 0.046]; else undecided.
# - **Does that advantage shrink without companions?** For lookalikes by a fifth: silhouette from +0.090 to +0.071 [0.038,
#   0.103], a difference of +0.018 [0.002, 0.035]; purity far in time from +0.025 to +0.004, undecided (+0.020 [−0.000,
#   0.047]). So most of it is not due to companions. With all objects compared it grows, to +0.061 [0.029, 0.093] (−0.015
#   [−0.025, −0.002]). Mind that clips without companions also hold fewer objects, and less that hides a twin.
# - **What differs**: our models are tiny, and see drawn clips of 160 x 240 pixels, not OVIS. The paper compares three code
#   bases; the siblings share everything but their losses and Eq. 7's MLP, which only `tiny_cavis` has. They stand on
#   features that had learned with the losses of CAVIS: `tiny_minvis` and `tiny_ctvis` may owe some of what they tell
#   apart to these. Core and context-aware embeddings of `tiny` come from one model, trained together: the context loss
#   also shapes the core.
#
# ## Exercises
#
# Replace each `None`; the check tells you whether you are right.
#
# **1.** With all objects compared, which of the three embeddings of `tiny` has the highest silhouette? Answer with its
# name.

# %%
best = None  # your answer
silhouettes = {one: measured["tiny", "all objects", one].silhouette.value for one in LAYERS}
assert best is None or best == max(silhouettes, key=silhouettes.get), "compare the values in the first table"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# best = max(LAYERS, key=lambda one: measured["tiny", "all objects", one].silhouette.value)
# ```
#
# </details>
#
# **2.** Nearest rows are mostly the frame before and the frame after. Compute the purity of the core embedding for *all
# objects* when neighbours within 8 frames do not count. What happens, and why?

# %%
far = None  # your answer
near = measured["tiny", "all objects", "core"]
assert far is None or far.purity.value < near.purity.value, "use the parameter gap of separation"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# far = separation(table, "core", gap=8)
# ```
#
# It drops: over a longer time an object changes its size, tilt and place, and has to be known again all the same. An
# embedding is worth what it is worth across such a gap.
#
# </details>
#
# **3.** Perplexity cannot be chosen freely in small clips. Ask `draw` for a perplexity of 1000 and find out which one was
# used.

# %%
used = None  # your answer
assert used is None or abs(used - (len(here) - 1) / 3) < 1e-6, "a Projection knows its perplexity"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# used = draw("core", perplexity=1000).perplexity
# ```
#
# A perplexity is about a number of neighbours, so it must be smaller than the number of rows; here it is brought down to
# a third of them.
#
# </details>
