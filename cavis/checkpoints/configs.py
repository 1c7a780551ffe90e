"""Model configurations as plain JSON, as checkpoints carry them."""

from dataclasses import asdict
from typing import Any

from cavis.config import BACKBONES, ModelConfig, Reading


def model_config_to_json(config: ModelConfig) -> dict[str, Any]:
    """What a checkpoint stores of its model, as plain JSON."""
    kind = next(name for name, backbone in BACKBONES.items() if isinstance(config.backbone, backbone))
    return asdict(config) | {"backbone": {"kind": kind, **asdict(config.backbone)}}


def model_config_from_json(data: dict[str, Any]) -> ModelConfig:
    """Rebuild a model configuration from :func:`model_config_to_json`.

    Raises ValueError if the entries are not those of this version.
    """
    try:
        backbone: dict[str, Any] = dict(data["backbone"])
        kind = BACKBONES[backbone.pop("kind")]
        for key in ("depths", "widths", "heads"):  # JSON has lists where there are tuples
            if hasattr(backbone.get(key), "__len__"):
                backbone[key] = tuple(backbone[key])
        rest = {key: value for key, value in data.items() if key not in ("backbone", "reading", "categories")}
        rest |= {key: tuple(rest[key]) for key in ("mean", "deviation") if key in rest}
        return ModelConfig(
            backbone=kind(**backbone),
            categories=tuple(data["categories"]),
            reading=Reading(**data["reading"]),
            **rest,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"expected a model configuration of this version of cavis: {error}") from error
