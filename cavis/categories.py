"""The category names of the data sets; a model's label is the index into one of these."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

TWINS: tuple[str, ...] = (
    *("airplane", "bear", "bird", "boat", "car", "cat", "cow", "dog", "elephant", "fish"),
    *("horse", "monkey", "motorbike", "mouse", "person", "rabbit", "sheep", "tiger", "train", "truck"),
)
"""The twins' world, named as YouTube-VIS and OVIS name them."""

YTVIS19: tuple[str, ...] = (
    *("person", "giant_panda", "lizard", "parrot", "skateboard", "sedan", "ape", "dog", "snake", "monkey"),
    *("hand", "rabbit", "duck", "cat", "cow", "fish", "train", "horse", "turtle", "bear"),
    *("motorbike", "giraffe", "leopard", "fox", "deer", "owl", "surfboard", "airplane", "truck", "zebra"),
    *("tiger", "elephant", "snowboard", "boat", "shark", "mouse", "frog", "eagle", "earless_seal", "tennis_racket"),
)
"""YouTube-VIS 2019; category ids 1 ... 40 in this order."""

YTVIS21: tuple[str, ...] = (
    *("airplane", "bear", "bird", "boat", "car", "cat", "cow", "deer", "dog", "duck"),
    *("earless_seal", "elephant", "fish", "flying_disc", "fox", "frog", "giant_panda", "giraffe", "horse", "leopard"),
    *("lizard", "monkey", "motorbike", "mouse", "parrot", "person", "rabbit", "shark", "skateboard", "snake"),
    *("snowboard", "squirrel", "surfboard", "tennis_racket", "tiger", "train", "truck", "turtle", "whale", "zebra"),
)
"""YouTube-VIS 2021 and 2022; category ids 1 ... 40 in this order."""

OVIS: tuple[str, ...] = (
    *("Person", "Bird", "Cat", "Dog", "Horse", "Sheep", "Cow", "Elephant", "Bear", "Zebra"),
    *("Giraffe", "Poultry", "Giant_panda", "Lizard", "Parrot", "Monkey", "Rabbit", "Tiger", "Fish", "Turtle"),
    *("Bicycle", "Motorcycle", "Airplane", "Boat", "Vehicle"),
)
"""OVIS; category ids 1 ... 25 in this order."""

_VIPSEG_BY_ID: tuple[str, ...] = (
    *("wall", "ceiling", "door", "stair", "ladder", "escalator", "Playground_slide", "handrail_or_fence"),
    *("window", "rail", "goal", "pillar", "pole", "floor", "ground", "grass", "sand", "athletic_field", "road"),
    *("path", "crosswalk", "building", "house", "bridge", "tower", "windmill", "well_or_well_lid"),
    *("other_construction", "sky", "mountain", "stone", "wood", "ice", "snowfield", "grandstand", "sea", "river"),
    *("lake", "waterfall", "water", "billboard_or_Bulletin_Board", "sculpture", "pipeline", "flag"),
    *("parasol_or_umbrella", "cushion_or_carpet", "tent", "roadblock", "car", "bus", "truck", "bicycle"),
    *("motorcycle", "wheeled_machine", "ship_or_boat", "raft", "airplane", "tyre", "traffic_light", "lamp"),
    *("person", "cat", "dog", "horse", "cattle", "other_animal", "tree", "flower", "other_plant", "toy"),
    *("ball_net", "backboard", "skateboard", "bat", "ball", "cupboard_or_showcase_or_storage_rack", "box"),
    *("traveling_case_or_trolley_case", "basket", "bag_or_package", "trash_can", "cage", "plate"),
    *("tub_or_bowl_or_pot", "bottle_or_cup", "barrel", "fishbowl", "bed", "pillow", "table_or_desk"),
    *("chair_or_seat", "bench", "sofa", "shelf", "bathtub", "gun", "commode", "roaster", "other_machine"),
    *("refrigerator", "washing_machine", "Microwave_oven", "fan", "curtain", "textiles", "clothes"),
    *("painting_or_poster", "mirror", "flower_pot_or_vase", "clock", "book", "tool", "blackboard", "tissue"),
    *("screen_or_television", "computer", "printer", "Mobile_phone", "keyboard", "other_electronic_product"),
    *("fruit", "food", "instrument", "train"),
)
VIPSEG_THING_IDS: tuple[int, ...] = (
    *(2, 4, 8, 10, 41, *range(43, 45), *range(46, 53), *range(54, 57), *range(60, 66), 72, 74, *range(76, 80)),
    *(*range(82, 93), *range(95, 98), *range(99, 103), *range(106, 110), *range(114, 119), 122, 123),
)
"""The 58 things among VIPSeg's category ids 0 ... 123; all others are stuff."""
VIPSEG_IDS: tuple[int, ...] = (
    *VIPSEG_THING_IDS,
    *(i for i in range(len(_VIPSEG_BY_ID)) if i not in VIPSEG_THING_IDS),
)
"""The data set's category id of each label: things first, then stuff."""
VIPSEG: tuple[str, ...] = tuple(_VIPSEG_BY_ID[i] for i in VIPSEG_IDS)
"""VIPSeg in label order: 58 things, then 66 stuff."""
VSPW: tuple[str, ...] = VIPSEG
"""VSPW has the categories of VIPSeg, in the same label order; a pixel's value in its masks is VIPSeg's id + 1."""

COCO: tuple[str, ...] = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard"),
    *("cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors"),
    *("teddy bear", "hair drier", "toothbrush"),
)
"""COCO's 80 instance categories, in the order of their ids."""

COCO_PANOPTIC: tuple[str, ...] = (
    *COCO,
    *("banner", "blanket", "bridge", "cardboard", "counter", "curtain", "door-stuff", "floor-wood", "flower"),
    *("fruit", "gravel", "house", "light", "mirror-stuff", "net", "pillow", "platform", "playingfield"),
    *("railroad", "river", "road", "roof", "sand", "sea", "shelf", "snow", "stairs", "tent", "towel"),
    *("wall-brick", "wall-stone", "wall-tile", "wall-wood", "water-other", "window-blind", "window-other"),
    *("tree-merged", "fence-merged", "ceiling-merged", "sky-other-merged", "cabinet-merged", "table-merged"),
    *("floor-other-merged", "pavement-merged", "mountain-merged", "grass-merged", "dirt-merged", "paper-merged"),
    *("food-other-merged", "building-other-merged", "rock-merged", "wall-other-merged", "rug-merged"),
)
"""COCO's 80 things, then its 53 kinds of stuff."""


def plain_name(name: str) -> str:
    """A name without what data sets write differently: ``Giant_panda`` and ``giant panda`` are one category."""
    return "".join(letter for letter in name.casefold() if letter not in " -_")


@dataclass(frozen=True)
class CategoryMap:
    """How the categories of one data set are those of another, by name."""

    names: tuple[str, ...]
    """The other data set's categories, by label."""
    counterparts: Mapping[str, str]
    """Name here -> name there; a category that is missing here has no counterpart."""

    def label(self, name: str) -> int | None:
        """The label of the counterpart of a category, however its name is written; None where there is none."""
        plain = plain_name(name)
        there = next((there for here, there in self.counterparts.items() if plain_name(here) == plain), None)
        return None if there is None else self.names.index(there)

    def labels(self, categories: Collection[str]) -> dict[str, int]:
        """Category -> label, of those that have a counterpart; where all have names from there, they keep them."""
        own = self._own(categories)
        found = {name: own[plain_name(name)] if own else self.label(name) for name in categories}
        return {name: label for name, label in found.items() if label is not None}

    def complete(self, looked_for: Collection[str], categories: Collection[str]) -> set[int]:
        """The labels of which all objects are annotated where ``looked_for``, some of the categories, are.

        Those are the labels all of whose counterparts are among them; or the labels of their own names, where all
        categories have names from there.
        """
        there = set(map(plain_name, looked_for))
        if own := self._own(categories):
            return {own[name] for name in there}
        missing = {name for here, name in self.counterparts.items() if plain_name(here) not in there}
        return {self.names.index(name) for name in set(self.counterparts.values()) - missing}

    def _own(self, categories: Collection[str]) -> dict[str, int]:
        """Plain name -> label, if all categories have names from there; empty otherwise."""
        own = {plain_name(name): label for label, name in enumerate(self.names)}
        return own if own.keys() >= set(map(plain_name, categories)) else {}


_SHARED = ("person", "airplane", "train", "truck", "boat", "cat", "dog", "horse", "cow", "elephant", "bear", "zebra")
_COCO_TO_YTVIS = {name: name for name in (*_SHARED, "giraffe", "skateboard", "surfboard")} | {
    "bicycle": "motorbike",
    "motorcycle": "motorbike",
    "skis": "snowboard",
    "snowboard": "snowboard",
    "tennis racket": "tennis_racket",
}
_OVIS_ALIKE = (*_SHARED, "giraffe", "bicycle", "motorcycle", "sheep")
_COCO_TO_OVIS = {name: name.capitalize() for name in _OVIS_ALIKE if name != "train"} | dict.fromkeys(
    ("car", "bus", "truck"), "Vehicle"
)
LITE: tuple[str, ...] = ("person", "cat", "car", "bicycle", "motorcycle", "object")
"""What ``lite`` tells apart; everything else is an object."""


def _as_lite(names: tuple[str, ...]) -> CategoryMap:
    """Categories of the same names, and objects."""
    same = {name: name for name in LITE} | {"motorbike": "motorcycle"}
    return CategoryMap(LITE, {name: same.get(name, "object") for name in names})


TWINS_AS: Mapping[str, CategoryMap] = {"lite": _as_lite(TWINS)}
"""The twins' world under the names of another preset."""
COCO_AS: Mapping[str, CategoryMap] = {
    "ytvis19": CategoryMap(YTVIS19, _COCO_TO_YTVIS | {"car": "sedan"}),
    "ytvis21": CategoryMap(YTVIS21, _COCO_TO_YTVIS | {"car": "car", "bird": "bird", "frisbee": "flying_disc"}),
    "ovis": CategoryMap(OVIS, _COCO_TO_OVIS),
    "lite": _as_lite(COCO),
}
"""COCO's categories as those of the video data sets, for joint training as in the released code (a bicycle is taken for
a motorbike where there are no bicycles), and as those of lite."""
