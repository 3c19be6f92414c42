"""Builders of networks, and the catalog of named architectures."""

from refnet.networks import classifier, fold, fpn3d, inflate, resnet3d, roi_head, time_link
from refnet.networks.catalog import ARCHITECTURES, build

__all__ = [
    "ARCHITECTURES",
    "build",
    "classifier",
    "fold",
    "fpn3d",
    "inflate",
    "resnet3d",
    "roi_head",
    "time_link",
]
