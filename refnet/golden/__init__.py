"""Golden bundles: everything that one run computes, in files, with what it takes to compute it again."""

from refnet.arrays import ulp_distance
from refnet.golden.against import Rounding, against
from refnet.golden.bundle import SECTIONS, Bundle, ClipSource, Recipe
from refnet.golden.derive import clip_recipe, make
from refnet.golden.findings import Finding, diff, first_difference, verify

__all__ = [
    "SECTIONS",
    "Bundle",
    "ClipSource",
    "Finding",
    "Recipe",
    "Rounding",
    "against",
    "clip_recipe",
    "diff",
    "first_difference",
    "make",
    "ulp_distance",
    "verify",
]
