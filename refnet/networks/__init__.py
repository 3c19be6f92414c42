"""Builders of networks, and the catalog of named architectures."""

from refnet.networks import fpn3d, inflate, resnet3d
from refnet.networks.catalog import ARCHITECTURES, build

__all__ = ["ARCHITECTURES", "build", "fpn3d", "inflate", "resnet3d"]
