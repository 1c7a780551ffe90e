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
from pathlib import Path

import ipywidgets as ipw
import pandas as pd

from cavis import OnlinePredictor, bundled_models, load_model
from cavis.analysis import associate, collect, crop, difference, fast, row_numbers, separation, tsne, twins, vectors
from cavis.data.synthetic import TwinsConfig
from widgets import AssociationMatrix, EmbeddingMap, TrackPlayer

CLIPS = 2 if fast() else 12  # CAVIS_FAST=1 makes everything small
SEED = 2000  # of the clips; none of them was used in training

# %% [markdown]
# ## 1 · Models whose losses differ
#
# Figure 4 compares three methods. Here they are three models of the same size, trained on the same clips: they differ in
# their losses only. What is not in the package yet is left out.

# %%
FAMILY = {
    "tiny_minvis": "as MinVIS: no loss on identity",
    "tiny_ctvis": "as CTVIS: core embeddings of one object are pulled together",
    "tiny": "as CAVIS: context-aware embeddings of one object are pulled together",
}
present = [name for name in FAMILY if name in bundled_models()]
for name, what in FAMILY.items():
    print(f"{name:12} {what}" + ("" if name in present else "   (not in the package: left out)"))

# %%
clips = twins(CLIPS, SEED)
tables = {name: collect(load_model(name), clips, seed=SEED) for name in present}
table = tables["tiny"]
table.drop(columns=["core", "context_aware"]).head()

# %% [markdown]
# One row is one track in one frame. `identity` is the true object whose pixels the row shows (-1: none).
#
# ## 2 · The picture
#
# t-SNE puts rows with similar embeddings next to each other. One clip, two embeddings of the same model; a colour is a
# true object. **Draw around some points** in one map: they light up in the other one, and the player goes to them.

# %%
clip = clips[0]
here = table[table["clip"] == clip.name]
names = {-1: "no object", **{i: f"{c} {i}" for i, c in zip(here["identity"], here["true_category"]) if i >= 0}}
with clip.open() as video:
    frames = list(video)
result = OnlinePredictor(load_model("tiny")).run(frames).filter(min_score=0.3)


def picture_of(row):
    return crop(frames[here["frame"][row]], here.loc[row, ["x", "y", "width", "height"]].to_numpy(float))


def text_of(row):
    return f"{names[here['identity'][row]]}, frame {here['frame'][row]}, track {here['track'][row]}"


# %%
def draw(layer, perplexity=30, seed=0, metric="cosine"):
    return tsne(vectors(here, layer), perplexity=perplexity, seed=seed, metric=metric, layer=layer)


LAYERS = {"core": "Core embeddings", "context_embedding": "Context-aware embeddings"}
maps = {
    layer: EmbeddingMap(
        draw(layer).points, here["identity"], names=names, rows=here.index, crops=picture_of, describe=text_of,
        title=title, note=draw(layer).caption,
    )
    for layer, title in LAYERS.items()
}
tracks = [track.id for track in result.tracks]
rows = row_numbers(table, clip.name, tracks, len(frames))
owners = [here.loc[here["track"] == track, "identity"].mode()[0] for track in tracks]
player = TrackPlayer(
    frames, [track.masks for track in result.tracks], groups=owners, rows=rows, title="The clip",
    names=[f"track {track}: {names[owner]}" for track, owner in zip(tracks, owners)],
)
for view in (maps["context_embedding"], player):
    ipw.link((maps["core"], "selection"), (view, "selection"))
ipw.VBox([ipw.HBox(list(maps.values())), player])
