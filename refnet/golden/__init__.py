"""Golden bundles: everything that one run computes, in files, with what it takes to compute it again."""

from refnet.arrays import ulp_distance
from refnet.golden.against import Rounding, against
from refnet.golden.bundle import Bundle
from refnet.golden.causes import Cause, causes
from refnet.golden.derive import make, save
from refnet.golden.findings import Finding, diff, first_difference, verify
from refnet.golden.recipe import GROUPS, SECTIONS, ClipSource, Recipe, Source
from refnet.golden.sources import clip_recipe, params_recipe
from refnet.golden.statistics import Statistics, statistics

__all__ = [
    "GROUPS",
    "SECTIONS",
    "Bundle",
    "Cause",
    "ClipSource",
    "Finding",
    "Recipe",
    "Rounding",
    "Source",
    "Statistics",
    "against",
    "causes",
    "clip_recipe",
    "diff",
    "first_difference",
    "make",
    "params_recipe",
    "save",
    "statistics",
    "ulp_distance",
    "verify",
]
