"""ResNet through transformers."""

from jaxtyping import Float
from torch import Tensor, nn
from transformers import ResNetBackbone, ResNetConfig

from cavis.config import ResNet
from cavis.model.backbones.folding import freeze_norms


class ResNetMaps(nn.Module):
    """The four stages of a residual network."""

    def __init__(self, config: ResNet) -> None:
        super().__init__()
        self.channels = config.widths
        network = ResNetConfig(
            embedding_size=config.stem_width,
            hidden_sizes=list(config.widths),
            depths=list(config.depths),
            layer_type=config.layer,
        )
        network.out_features = ["stage1", "stage2", "stage3", "stage4"]
        self.network = ResNetBackbone(network)
        if config.norm == "frozen":
            freeze_norms(self.network)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """Normalised images in; maps at strides 4, 8, 16, 32 out."""
        return tuple(self.network(images).feature_maps)
