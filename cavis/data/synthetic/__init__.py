"""The twins' world: a seeded generator of annotated clips in which identical things cross and hide each other.

Several *twins* (instances of one and the same cut-out) meet, cover each other, and part again; sometimes they change
sides, sometimes they turn back, so neither appearance nor motion tells who is who. Each twin has its own *companion*
moving alongside (the rider and the bicycle of the paper's Figure 1): the surroundings do tell. Rendering the same seed
with ``companions=False`` takes this away and changes nothing else, which is the control of the paper's claim.

:class:`TwinsConfig` has every knob, :class:`TwinsClip` plans one clip and renders its frames in any order,
:func:`synthesize` writes a data set in YouTube-VIS format (``cavis synthesize``).
"""

from cavis.data.synthetic.clip import TwinsClip
from cavis.data.synthetic.config import CATEGORIES, TwinsConfig
from cavis.data.synthetic.export import clip_seed, synthesize

__all__ = ["CATEGORIES", "TwinsClip", "TwinsConfig", "clip_seed", "synthesize"]
