"""What a check found: a verdict for each array that it judged, and the report that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf, isfinite, isnan
from typing import Any, Literal

from refnet.errors import printable
from refnet.shown import Table, as_html

# Of gradient checks: ok, wrong, undecided, blocked. Of certification: the other words, and blocked.
Word = Literal[
    "ok",
    "wrong",
    "undecided",
    "blocked",
    "exact",
    "consistent",
    "systematic",
    "implausible",
    "impossible",
    "refused",
]

# From harmless to worst; within one, a larger margin is worse.
SEVERITY: tuple[Word, ...] = (
    "blocked",
    "ok",
    "exact",
    "consistent",
    "undecided",
    "refused",
    "systematic",
    "implausible",
    "wrong",
    "impossible",
)
# What is as it should be, and what says nothing either way.
PASSING = frozenset({"blocked", "ok", "exact", "consistent"})
OPEN = frozenset({"undecided", "refused"})
# Failures of certification, whose verdicts are held in the order of computation.
IN_ORDER = frozenset({"systematic", "implausible", "impossible"})
# Failures that a report's repr lists.
MOST_LISTED = 3


@dataclass(frozen=True, kw_only=True)
class Heat:
    """How large the differences of a blob are over frames, lines and columns, in units of their bounds.

    Attributes
    ----------
    shape : tuple of int
        T, H and W.
    steps : tuple of int
        How many indices of each are one cell; those of the last may be fewer.
    values : tuple
        The largest abs(found - expected) / bound of each cell over samples and channels: frames of lines of
        columns.
    """

    shape: tuple[int, int, int]
    steps: tuple[int, int, int]
    values: tuple[tuple[tuple[float, ...], ...], ...]


@dataclass(frozen=True, kw_only=True)
class Residual:
    """How the differences of an array from what was expected are spread.

    Attributes
    ----------
    rms : float, optional
        The root mean square of difference / sigma, the expected error of a plain sum; None where no such
        error is expected.
    largest : float, optional
        The largest abs(difference) / sigma', where the expected error is that of a result near 0; and
        `limit`, what it may be.
    limit : float, optional
    terms : int
        Of the longest sum; 0 where nothing is summed.
    histogram : tuple of int
        How many elements have difference / bound in each of 41 equal bins from -1.025 to 1.025; those beyond
        are counted in the first and the last.
    heat : Heat, optional
        Of a blob with frames, lines and columns, where a page shows it.
    """

    rms: float | None = None
    largest: float | None = None
    limit: float | None = None
    terms: int = 0
    histogram: tuple[int, ...] = ()
    heat: Heat | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Map:
    """Where an array is wrong, seen along one or two of its axes.

    Attributes
    ----------
    axes : tuple of str
        What they are called.
    shape : tuple of int
        The array's sizes along them.
    steps : tuple of int
        How many indices of each are one cell; those of the last may be fewer.
    counts : tuple of tuple of int
        The wrong elements of each cell, counted over all other axes; one row where there is one axis.
    depth : int
        How many elements of the array have one index of these axes.
    """

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    steps: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]
    depth: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found of one array.

    Attributes
    ----------
    tensor : str
        The array's name.
    verdict : str
        Of a gradient check: *ok*, every element is within its bound; *wrong*, some element is not;
        *undecided*, the check cannot say (`why`); *blocked*, there is no gradient, and should be none.
        Of certification, beside *blocked*: *exact*, every element is the correctly rounded one; *consistent*
        with rounding as claimed; *systematic*, within bounds, but the differences have structure;
        *implausible*, larger than the expected error in any natural order of the sum; *impossible*, beyond
        the bound: not rounding; *refused*, nothing can be said (`why`).
    margin : float
        The largest abs(found - expected) / bound; infinite where NaN was found, or where no rounding is
        allowed and there was some.
    node, op : str
        The node (or the case) whose call made the worst element, and its operator.
    where : tuple of int, optional
        The index of the worst element.
    found, expected, bound : float, optional
        Of the worst element.
    wrong, elements : int
        How many elements are beyond their bounds, of how many that were judged.
    structure : str
        Which indices are wrong, in words.
    cause : str
        The likely cause, a sentence.
    hypothesis : str, optional
        A short name of the cause, for programs.
    why : str
        Why nothing was decided, or why there is no gradient.
    reproduce : str
        A line of Python or of a shell that shows the failure again.
    through : float, optional
        Of a blocked gradient: the Euclidean norm of the derivative through the block, where training sees 0.
    maps : tuple of Map
        Of a wrong array: what a page draws. `record` leaves them out, `structure` says it in words.
    residual : Residual, optional
        Of certification: how the differences are spread.
    """

    tensor: str
    verdict: Word
    margin: float = 0.0
    node: str = ""
    op: str = ""
    where: tuple[int, ...] | None = None
    found: float | None = None
    expected: float | None = None
    bound: float | None = None
    wrong: int = 0
    elements: int = 0
    structure: str = ""
    cause: str = ""
    hypothesis: str | None = None
    why: str = ""
    reproduce: str = ""
    through: float | None = None
    maps: tuple[Map, ...] = field(default=(), repr=False)
    residual: Residual | None = field(default=None, repr=False)

    @property
    def passes(self) -> bool:
        """Whether it is as it should be."""
        return self.verdict in PASSING

    @property
    def badness(self) -> tuple[int, float]:
        """What verdicts are ordered by: the word, then the margin; NaN counts as infinite."""
        return SEVERITY.index(self.verdict), inf if isnan(self.margin) else self.margin


@dataclass(frozen=True, kw_only=True)
class Report:
    """The verdicts of a check, by array; true where it is `ok`.

    Attributes
    ----------
    title : str
        What was checked.
    verdicts : dict of str to Verdict
    facts : dict
        How: the oracle, dtype, seed, modulus and draws of a composition, ...: plain values.
    """

    title: str
    verdicts: Mapping[str, Verdict]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether something was judged, and all of it is as it should be."""
        return bool(self.verdicts) and all(verdict.passes for verdict in self.verdicts.values())

    def __bool__(self) -> bool:
        return self.ok

    @property
    def worst(self) -> Verdict | None:
        """The worst verdict: a wrong one before an undecided one, then that of the largest margin."""
        return max(self.verdicts.values(), key=lambda verdict: verdict.badness, default=None)

    @property
    def failures(self) -> list[Verdict]:
        """Verdicts that are not as they should be, the worst first."""
        failed = [verdict for verdict in self.verdicts.values() if not verdict.passes]
        return sorted(failed, key=lambda verdict: verdict.badness, reverse=True)

    @property
    def leading(self) -> Verdict | None:
        """The first failure of a certification, in the order of computation; none of a gradient check."""
        return next((v for v in self.verdicts.values() if v.verdict in IN_ORDER), None)

    @property
    def first_failure(self) -> str | None:
        """The node of the first verdict, in the order in which they are held, that something is wrong."""
        failed = (v.node for v in self.verdicts.values() if not v.passes and v.verdict not in OPEN)
        return next(failed, None)

    def record(self) -> dict[str, Any]:
        """The report as JSON has it; numbers that JSON lacks as strings: "inf", "nan"."""
        found: dict[str, Any] = _plain(
            {
                "title": self.title,
                "ok": self.ok,
                "facts": dict(self.facts),
                "verdicts": {name: _fields(verdict) for name, verdict in self.verdicts.items()},
            }
        )
        return found

    def _repr_html_(self) -> str:
        title, *_ = repr(self).split("\n")
        worst = sorted(self.verdicts.values(), key=lambda verdict: verdict.badness, reverse=True)
        rows = [(v.tensor, v.verdict, f"{v.margin:.3g}", v.cause or v.why or v.structure) for v in worst]
        return as_html(Table(title.strip("<>"), ("tensor", "verdict", "margin", ""), rows))

    def __repr__(self) -> str:
        numbers = {
            word: sum(v.verdict == word for v in self.verdicts.values()) for word in reversed(SEVERITY)
        }
        said = [f"{number} {word}" for word, number in numbers.items() if number] or ["nothing was judged"]
        leading = self.leading
        if leading is not None:
            said.append(f"first failure {leading.node or leading.tensor}")
        failed = sorted(self.failures, key=lambda verdict: verdict is not leading)
        lines = [f"<{self.title}: {', '.join(said)}", *map(_line, failed[:MOST_LISTED])]
        return "\n".join(map(printable, lines)) + ">"


def _line(verdict: Verdict) -> str:
    """A failure in a line."""
    rms = (
        ""
        if verdict.residual is None or verdict.residual.rms is None
        else f", rms {verdict.residual.rms:.3g}"
    )
    why = verdict.cause or verdict.why or verdict.structure or f"margin {verdict.margin:.3g}{rms}"
    return f"  {verdict.tensor}: {verdict.verdict}, {why}"


def _fields(verdict: Verdict) -> dict[str, Any]:
    found = asdict(verdict)
    del found["maps"]
    if verdict.residual is None:
        del found["residual"]
    else:
        del found["residual"]["heat"]
    return found


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    return value
