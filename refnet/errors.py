"""What can be wrong with an input. Each message names the thing, what was found, what was needed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from os import PathLike
from pathlib import Path


class RefnetError(Exception):
    """The input cannot be used; the base of every error that refnet raises on purpose.

    Its message may quote names and texts of a file that nobody vouches for: none of them controls a terminal.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class UnknownNameError(RefnetError, KeyError):
    """A name that is not among the known ones.

    Parameters
    ----------
    what : str
        What it should be the name of.
    name : object
    known : iterable of str
    aliases : mapping of str to sequence of str, optional
        Names that others use, in lower case, and what they mean: the first of it that is known.
    advice : str, optional
        What is said in place of names that may have been meant.
    """

    def __init__(
        self,
        what: str,
        name: object,
        known: Iterable[str],
        aliases: Mapping[str, Sequence[str]] | None = None,
        advice: str = "",
    ):
        found = repr(name) if isinstance(name, str) else brief(name)
        if found == kind_of(name) != "None":
            found = f"({found})"
        super().__init__(f"unknown {what} {found}: {advice or suggestion(name, known, aliases)}")

    def __str__(self) -> str:
        return printable(str(self.args[0]))  # KeyError's own has quotation marks


# Names that a message lists in full.
MOST_LISTED = 16


def suggestion(
    name: object,
    known: Iterable[str],
    aliases: Mapping[str, Sequence[str]] | None = None,
    most: int = MOST_LISTED,
) -> str:
    """What may have been meant by a name that is not known, and what is known; at most so many in full."""
    known = list(known)
    few = len(known) <= most
    near = _near(name, known, aliases or {}) if isinstance(name, str) else []
    if not near:
        if not known:
            return "expected none"
        listed = ", ".join(known if few else known[: most // 2])
        one = "one of " if len(known) > 1 else ""
        return f"expected {one}{listed}" + ("" if few else f", ... ({len(known)} in all)")
    shown = f" Known: {', '.join(known)}" if few and len(near) < len(known) else ""
    return f"did you mean {' or '.join(near)}?{shown}"


def _near(name: str, known: Sequence[str], aliases: Mapping[str, Sequence[str]]) -> list[str]:
    """The known names that somebody may have meant: whatever the case, hyphens and spaces."""

    def folded(text: str) -> str:
        return re.sub(r"[\W_]+", "", text.lower())

    meant = [one for one in aliases.get(name.lower(), ()) if one in known]
    if meant:
        return meant[:1]
    spelled: dict[str, list[str]] = {}
    for one in known:
        spelled.setdefault(folded(one), []).append(one)
    found = folded(name)
    close = get_close_matches(found, spelled, n=max(len(spelled), 1))
    close.sort(key=list(spelled).index)  # of those as near, the one that is listed first
    close.sort(key=lambda text: SequenceMatcher(None, text, found).ratio(), reverse=True)
    return [one for text in close for one in spelled[text]][:3]


def require_known(what: str, name: object, known: Iterable[str]) -> None:
    """Refuse a name that is not among the known ones.

    Raises
    ------
    UnknownNameError
        If it is another, or no string at all.
    """
    if not isinstance(name, str) or name not in known:
        raise UnknownNameError(what, name, known)


class ShapeError(RefnetError, ValueError):
    """Sizes that do not fit an operator or a network."""


class DTypeError(RefnetError, TypeError):
    """A dtype that is not taken, or a mixture of two."""


class ValueRangeError(RefnetError, ValueError):
    """An option, or a value in an array, outside what is allowed."""


class NotFiniteError(ValueRangeError):
    """Infinity or NaN where an operator of exact arithmetic reads.

    Parameters
    ----------
    what : str
        The array.
    value : float
    index : tuple of int
        Where the first is.
    position : int or None
        Of the operator's inputs; -1 is dy, None a step of the operator's own.

    Attributes
    ----------
    what, position
    """

    def __init__(self, what: str, value: float, index: tuple[int, ...], position: int | None):
        self.what, self.position, self._found = what, position, (value, index, position)
        place = f" at {index}" if index else ""
        super().__init__(
            f"{what} is {value}{place}: exact arithmetic expects finite numbers, "
            "for no other has a correctly rounded result"
        )

    def within(self, node: str, inputs: Sequence[str]) -> "NotFiniteError":
        """The same of the blob that the array is of a network, for a node that reads these blobs."""
        if self.position is None:
            blob = f"{self.what} of {node}"
        else:
            blob = f"the gradient of {node}" if self.position < 0 else inputs[self.position]
        return NotFiniteError(blob, *self._found)


class KernelError(RefnetError, RuntimeError):
    """A kernel of somebody's own that raised an exception, or returned nothing but NaN."""


class TooLargeError(RefnetError, MemoryError):
    """Work that would not fit into the memory or onto the disk that is left."""


class NotInstalledError(RefnetError, ImportError):
    """A package that refnet does not depend on, and that is not there."""


class FileError(RefnetError, ValueError):
    """A file or folder that is missing, unreadable, damaged or not what it claims to be."""


def at(place: str, error: RefnetError) -> RefnetError:
    """The error, its message preceded by the place where it arose."""
    error.args = (f"{place}: {error}",)
    return error


def some(names: Sequence[str]) -> str:
    """A name or two, or a name and how many others: ``conv1_w and 62 others``."""
    return " and ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} others"


def kind_of(value: object) -> str:
    """What an object is, with its article."""
    return "None" if value is None else with_article(type(value).__name__)


def with_article(noun: str) -> str:
    """A noun with its article: an ndarray, a uint8."""
    spoken = re.match("(?!uint|unit|univ|user)[aeiou]|nd|np", noun.lower())
    return f"{'an' if spoken else 'a'} {noun}"


def brief(value: object) -> str:
    """A value as Python writes it, if that is short; else what kind it is."""
    if isinstance(value, str | int | float | complex | tuple | list | dict | None):
        written = repr(value)
        if len(written) <= 80 and "\n" not in written:
            return written
    return kind_of(value)


def path_of(what: str, value: object) -> Path:
    """A path.

    Raises
    ------
    DTypeError
        If it is none.
    """
    if isinstance(value, str | PathLike):
        return Path(value)
    raise DTypeError(f"{what} is {brief(value)}: expected a path")


def require_callable(what: str, value: object) -> None:
    """Refuse what is no function.

    Raises
    ------
    DTypeError
    """
    if not callable(value):
        raise DTypeError(f"{what} is {brief(value)}: expected a function")


def require_kind(what: str, value: object, kind: type, advice: str) -> None:
    """Refuse what is of another kind than a function needs: a name for a net, an array for a run.

    Parameters
    ----------
    what : str
        What it is called in the message.
    value : object
    kind : type
    advice : str
        Where one comes from.

    Raises
    ------
    DTypeError
    """
    if not isinstance(value, kind):
        raise DTypeError(f"{what} is {kind_of(value)}: expected {with_article(kind.__name__)}, {advice}")


def require_fraction(name: str, value: object) -> None:
    """Refuse what is no number between 0 and 1, both excluded.

    Raises
    ------
    ValueRangeError
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ValueRangeError(f"{name} is {brief(value)}: expected a number above 0 and below 1")


def printable(text: str) -> str:
    r"""A text in which what is no printable character is written as an escape: ``\n`` for a line's end."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """A text of lines, each `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def one_line(error: BaseException) -> str:
    """The message of somebody else's exception, on one line, without the number that Python puts first."""
    return re.sub(r"^\[Errno -?\d+\] ", "", " ".join(str(error).split())) or type(error).__name__
