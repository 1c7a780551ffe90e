"""The model. :func:`build_model` is the one place where its parts are put together."""

from cavis.config import ModelConfig, Stage
from cavis.model.association import FrameLinker
from cavis.model.backbones import build_backbone, fold_norms
from cavis.model.cavis import Cavis
from cavis.model.context import ContextPooling
from cavis.model.layers import Mlp
from cavis.model.pixel_decoder import PixelDecoder
from cavis.model.query_decoder import QueryDecoder
from cavis.model.refiner import Refiner
from cavis.model.segmenter import Segmenter
from cavis.model.tracker import Tracker

__all__ = ["Cavis", "build_model", "fold_norms"]


def build_model(config: ModelConfig, stage: Stage = "tracker") -> Cavis:
    """Build the untrained model of a stage."""
    tracker = build_tracker(config) if stage != "segmenter" else None
    refiner = build_refiner(config) if stage == "refiner" else None
    reading = config.reading
    linker = FrameLinker(
        association=reading.association, seen=reading.tracker_start == "seen", memory=reading.reference_memory
    )
    return Cavis(build_segmenter(config), linker, tracker, refiner)


def build_segmenter(config: ModelConfig) -> Segmenter:
    """Put the segmenter together."""
    backbone = build_backbone(config.backbone)
    pixel_decoder = PixelDecoder(
        backbone.channels,
        hidden=config.hidden,
        heads=config.heads,
        points=config.sampling_points,
        layers=config.pixel_decoder_layers,
        feedforward=config.pixel_decoder_feedforward,
    )
    query_decoder = QueryDecoder(
        queries=config.queries,
        hidden=config.hidden,
        heads=config.heads,
        layers=config.decoder_layers,
        feedforward=config.feedforward,
        num_classes=config.num_classes,
    )
    reading, hidden = config.reading, config.hidden
    mlp = Mlp((2 * hidden, hidden, hidden, hidden), last_relu=reading.context_mlp_last_relu)
    return Segmenter(
        backbone,
        pixel_decoder,
        query_decoder,
        ContextPooling(hidden, reading.context, reading.context_filter_size),
        None if reading.context == "none" else mlp,
        (config.mean, config.deviation),
    )


def build_tracker(config: ModelConfig) -> Tracker:
    """Put the tracker together."""
    return Tracker(
        hidden=config.hidden,
        heads=config.heads,
        layers=config.tracker_layers,
        feedforward=config.feedforward,
        num_classes=config.num_classes,
        reading=config.reading,
    )


def build_refiner(config: ModelConfig) -> Refiner:
    """Put the temporal refiner together."""
    return Refiner(
        hidden=config.hidden,
        heads=config.heads,
        layers=config.refiner_layers,
        feedforward=config.feedforward,
        num_classes=config.num_classes,
    )
