"""Summation trees: in which order the terms of a sum are added, and what such an order is called.

A leaf is a term; a node is where what its children hold is added, and rounded once. An addition has two
children, or more where hardware adds several numbers at once. Which of two children came first does not
matter to the sum, and is not held.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from refnet.cached import cached_property
from refnet.errors import ValueRangeError

# Leaves up to which a tree is written out.
WRITTEN = 32


@dataclass(frozen=True)
class Tree:
    """A summation tree, in a form that is equal for equal trees.

    Attributes
    ----------
    count : int
        The terms, 0 to count - 1.
    nodes : tuple of tuple of int
        The children of each node: terms, or count + k for node k. A node comes after its children, smaller
        nodes before larger ones, and those of one size in the order of their first terms; children likewise
        in the order of their first terms. The last node is the root.
    """

    count: int
    nodes: tuple[tuple[int, ...], ...]

    @classmethod
    def of_terms(cls, count: int, sets: Iterable[frozenset[int]]) -> "Tree":
        """The tree whose nodes hold these sets of terms.

        Parameters
        ----------
        count : int
        sets : iterable of frozenset
            One of all terms is among them; of any two, one holds the other, or they have no term in common.

        Raises
        ------
        ValueRangeError
            If they are no such sets.
        """
        ordered = sorted(set(sets), key=lambda terms: (len(terms), min(terms)))
        top, first = list(range(count)), list(range(count))
        nodes = []
        for number, terms in enumerate(ordered):
            children = sorted({top[term] for term in terms}, key=first.__getitem__)
            inside = [ordered[child - count] if child >= count else {child} for child in children]
            if sum(map(len, inside)) != len(terms) or len(children) < 2:
                raise ValueRangeError("sets of terms overlap: expected those of the nodes of a tree")
            nodes.append(tuple(children))
            first.append(min(terms))
            for term in terms:
                top[term] = count + number
        if count > 1 and not (ordered and len(ordered[-1]) == count):
            raise ValueRangeError(f"no set has all {count} terms: expected that of the root")
        return cls(count, tuple(nodes))

    @cached_property
    def terms(self) -> tuple[frozenset[int], ...]:
        """The terms below each node."""
        found: list[frozenset[int]] = []
        for children in self.nodes:
            found.append(frozenset().union(*(self._below(child, found) for child in children)))
        return tuple(found)

    @cached_property
    def height(self) -> int:
        """Most additions on the way from a term to the root."""
        heights = [0] * self.count
        for children in self.nodes:
            heights.append(1 + max(heights[child] for child in children))
        return heights[-1]

    @cached_property
    def fan_in(self) -> int:
        """Most numbers that are added at once."""
        return max(map(len, self.nodes))

    def meeting(self, i: int, j: int) -> int:
        """How many terms the smallest node holds that holds both of these."""
        return next(len(terms) for terms in self.terms if i in terms and j in terms)

    def siblings(self) -> dict[int, int]:
        """For each term, one that is added to what holds the other: the first of a sibling's."""
        found = {}
        for children in self.nodes:
            for child in children:
                if child < self.count:
                    other = next(c for c in children if c != child)
                    found[child] = min(self._below(other, self.terms))
        return found

    def _below(self, child: int, terms: Sequence[frozenset[int]]) -> frozenset[int]:
        return frozenset((child,)) if child < self.count else terms[child - self.count]

    # ---- In words

    @cached_property
    def words(self) -> str:
        """What it is called: "8 lanes of 32 terms in order, added pairwise"."""
        if self.count <= 2:
            return f"{self.count} term{'s' * (self.count - 1)}"
        if self.fan_in == self.count:
            return f"{self.count} terms at once"
        if self._name is not None:
            return f"{self.count} terms {self._name}"
        return self._lanes() or self._blocks() or self._followed() or self._joined() or self._unnamed()

    @cached_property
    def _name(self) -> str | None:
        """Of the trees of terms that one word names."""
        if self.count > 2 and self.fan_in == 2:
            for name, order in (("in order", range(self.count)), ("backwards", range(self.count)[::-1])):
                if self == chain(order):
                    return name
            if self.height == self.count - 1:
                return self._stride()
            if self in (pairwise(self.count), pairwise(self.count, powers=True)):
                return "pairwise"
            if self.count & (self.count - 1) == 0 and self == folded(self.count):
                return "half upon half"
        return None

    def _stride(self) -> str:
        """What a chain in another order is called."""
        for step in range(2, self.count):
            if self == chain(sorted(range(self.count), key=lambda term: (term % step, term))):
                return f"in strides of {step}"
        return "one by one in another order"

    def _unnamed(self) -> str:
        at_once = f", up to {self.fan_in} at once" if self.fan_in > 2 else ""
        return f"{self.count} terms in a tree of height {self.height}{at_once}"

    def _lanes(self) -> str | None:
        """Of equal trees, each of every nth term, that are added: of ones with names, if there are such."""
        found = None
        for number in range(2, self.count // 2 + 1):
            lanes = [frozenset(range(lane, self.count, number)) for lane in range(number)]
            if all(lane in self._places for lane in lanes) and self._alike(lanes):
                words = self._several("lanes", lanes, " or one less" if self.count % number else "")
                if self.subtree(lanes[0])._name is not None:
                    return words
                found = found or words
        return found

    def _blocks(self) -> str | None:
        """Of equal trees, each of terms that follow each other, that are added; the last may be smaller."""
        for size in range(self.count - 1, 1, -1):
            blocks = [
                frozenset(range(start, min(start + size, self.count))) for start in range(0, self.count, size)
            ]
            if all(len(block) == 1 or block in self._places for block in blocks) and self._alike(blocks):
                last = len(blocks[-1])
                return self._several("blocks", blocks, f", the last of {last}" if last < size else "")
        return None

    def _alike(self, parts: list[frozenset[int]]) -> bool:
        """Whether parts are equal trees, or have one name if they are of two sizes."""
        trees = {self.subtree(part) for part in parts}
        names = {tree._name for tree in trees if tree.count > 2}
        return len(trees) == 1 or (
            len({tree.count for tree in trees}) == len(trees) == 2 and len(names) == 1 and None not in names
        )

    def _several(self, what: str, parts: list[frozenset[int]], sizes: str) -> str:
        one = self.subtree(parts[0])
        each = f"({one.words})" if one._name is None and one.count > 2 else one.words
        tree = self._contracted(parts)
        how = "to each other" if tree.count == 2 else tree._name or f"as {tree.words.replace('term', 'part')}"
        return f"{len(parts)} {what} of {each}{sizes}, added {how}"

    def _followed(self) -> str | None:
        """Of a tree to which the last terms are added one by one."""
        rest, last = self.count, len(self.nodes)
        while last and set(self.nodes[last - 1]) == {rest - 1, self.count + last - 2}:
            rest, last = rest - 1, last - 1
        if rest == self.count:
            return None
        more = self.count - rest
        first = self.subtree(frozenset(range(rest)))
        return f"({first.words}), then {more} more term{'s' * (more > 1)} in order"

    def _joined(self) -> str | None:
        """Of two trees with names, each of terms that follow each other."""
        parts = [self._below(child, self.terms) for child in self.nodes[-1]]
        if len(parts) != 2 or max(parts[0]) > min(parts[1]):
            return None
        words = [self.subtree(part).words for part in parts]
        return None if any(" tree " in one for one in words) else f"({words[0]}) and ({words[1]}), added"

    @cached_property
    def _places(self) -> dict[frozenset[int], int]:
        """The node of each set of terms that has one."""
        return {terms: place for place, terms in enumerate(self.terms)}

    def subtree(self, terms: frozenset[int]) -> "Tree":
        """The tree of a node's terms, or of one term, numbered anew in their order."""
        place = {term: i for i, term in enumerate(sorted(terms))}
        inside = (frozenset(map(place.__getitem__, below)) for below in self.terms if below <= terms)
        return Tree.of_terms(len(terms), inside)

    def _contracted(self, parts: list[frozenset[int]]) -> "Tree":
        """The tree of parts, each of which is a node of this one or a term."""
        part_of = {term: i for i, part in enumerate(parts) for term in part}
        sets = {frozenset(part_of[term] for term in terms) for terms in self.terms}
        return Tree.of_terms(len(parts), (one for one in sets if len(one) > 1))

    def __str__(self) -> str:
        """The tree in parentheses, ((0+1)+2)+3, if it is small; else in words."""
        if self.count > WRITTEN:
            return self.words
        texts = [str(term) for term in range(self.count)]
        for children in self.nodes:
            texts.append("(" + "+".join(texts[child] for child in children) + ")")
        return texts[-1].removeprefix("(").removesuffix(")") if self.nodes else texts[-1]


def chain(order: Sequence[int]) -> Tree:
    """One term after the other, in that order."""
    return Tree.of_terms(len(order), (frozenset(order[: n + 1]) for n in range(1, len(order))))


def folded(count: int) -> Tree:
    """The second half added to the first, term by term, and so on: as vectors are; of a power of two."""
    steps = [1 << bit for bit in range(count.bit_length() - 1)]
    return Tree.of_terms(count, (frozenset(range(i, count, step)) for step in steps for i in range(step)))


def pairwise(count: int, *, powers: bool = False) -> Tree:
    """Halves, and halves of these: equal ones, the first one smaller if they cannot be.

    Parameters
    ----------
    count : int
    powers : bool
        Whether the first part has the largest power of two of terms that leaves some for the other.
    """
    sets, open_ = [], [(0, count)]
    while open_:
        start, stop = open_.pop()
        size = stop - start
        if size < 2:
            continue
        sets.append(frozenset(range(start, stop)))
        middle = start + (1 << (size - 1).bit_length() - 1 if powers else size // 2)
        open_ += [(start, middle), (middle, stop)]
    return Tree.of_terms(count, sets)
