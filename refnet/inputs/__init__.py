"""What a network is given: seeded values, real clips."""

from refnet.inputs import clip, fill

__all__ = ["clip", "fill"]
