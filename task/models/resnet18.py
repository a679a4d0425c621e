"""ResNet-18 (He et al. 2016) for small images, with GroupNorm instead of BatchNorm.

Layers are named as in torchvision, whose network it equals but for the stem. Not torchvision's
own classes, because their in-place sums cannot have the hooks of per-example gradients (Opacus).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from conf.errors import FedproofError
from task.base import ModelSpec
from task.models._norm import group_norm

WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """Two 3×3 convolutions around which the input, projected if need be, is added."""

    def __init__(self, channels: int, width: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = group_norm(width, groups)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = group_norm(width, groups)
        self.relu2 = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or channels != width:
            projection = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, group_norm(width, groups))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to (n, width, h / stride, w / stride)."""
        inner = self.relu1(self.bn1(self.conv1(x)))
        total: Tensor = self.bn2(self.conv2(inner)) + self.downsample(x)
        output: Tensor = self.relu2(total)
        return output


def build(options: Mapping[str, Any], spec: ModelSpec) -> nn.Module:
    """Build it with the stem that CIFAR-size images need.

    A 3×3 convolution of stride 1 and no max-pool: the original stem would shrink 32×32 pixels
    to 8×8 before the first block.

    Raises
    ------
    FedproofError
        If the input is no image.
    """
    if len(spec.input_shape) != 3:
        raise FedproofError(
            "model resnet18 needs images of (channels, height, width), "
            f"got inputs of shape {spec.input_shape}."
        )
    groups: int = options["groups"]
    width = WIDTHS[0]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(spec.input_shape[0], width, 3, padding=1, bias=False),
        bn1=group_norm(width, groups),
        relu=nn.ReLU(),
    )
    for number, following in enumerate(WIDTHS, start=1):
        layers[f"layer{number}"] = nn.Sequential(
            Block(width, following, stride=1 if number == 1 else 2, groups=groups),
            Block(following, following, stride=1, groups=groups),
        )
        width = following
    layers |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    model = nn.Sequential(layers | {"fc": nn.Linear(width, spec.outputs)})
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
