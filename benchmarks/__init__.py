"""The asv suite: time and peak memory over the named problems of `refnet.bench.problems`."""
