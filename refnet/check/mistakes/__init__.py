"""The catalogue of mistakes: groups, by what they need of an operator.

Each looks at a call and proposes the hypotheses that can be made there.
"""

from refnet.check.mistakes.formats import accumulated, operands, scale, stored
from refnet.check.mistakes.hypothesis import Hypothesis, Proposer
from refnet.check.mistakes.norms import norms, statistics
from refnet.check.mistakes.order import factors, of_groups, order, slabs
from refnet.check.mistakes.pools import pools
from refnet.check.mistakes.reading import attributes, offset, read, summed
from refnet.check.mistakes.roles import masks, moves, rectifiers, roles
from refnet.check.mistakes.scores import scores
from refnet.check.mistakes.windows import inflation, kernels, offsets, steps, taps_lost

__all__ = ["CATALOGUE", "SMALL", "Hypothesis", "Proposer"]

# Simple ones first; of a tier, those that fit are named together.
CATALOGUE: tuple[tuple[Proposer, ...], ...] = (
    (
        factors,
        rectifiers,
        kernels,
        order,
        of_groups,
        slabs,
        offsets,
        steps,
        roles,
        pools,
        norms,
        statistics,
        scores,
        masks,
        moves,
        summed,
        attributes,
        read,
        offset,
        inflation,
        taps_lost,
    ),
    (scale,),
    (operands, stored),
    (accumulated,),
)
# What is nearly right: formats before the rest.
SMALL = (CATALOGUE[2], CATALOGUE[0], CATALOGUE[1], CATALOGUE[3])
