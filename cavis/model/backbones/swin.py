"""Swin through transformers."""

from jaxtyping import Float
from torch import Tensor, nn
from transformers import SwinBackbone, SwinConfig

from cavis.config import Swin


class SwinMaps(nn.Module):
    """The four stages of a Swin transformer, each with a layer norm of its own."""

    def __init__(self, config: Swin) -> None:
        super().__init__()
        width = config.width
        self.channels = (width, 2 * width, 4 * width, 8 * width)
        network = SwinConfig(
            embed_dim=width,
            depths=list(config.depths),
            num_heads=list(config.heads),
            window_size=config.window,
            drop_path_rate=config.drop_path,
        )
        network.out_features = ["stage1", "stage2", "stage3", "stage4"]
        self.network = SwinBackbone(network)
        self.network.swin.add_module("layernorm", nn.Identity())  # the norms of the maps follow; it would go unused

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """Normalised images in; maps at strides 4, 8, 16, 32 out."""
        return tuple(self.network(images).feature_maps)
