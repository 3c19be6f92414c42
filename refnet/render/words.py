"""How the words of verdicts are shown, on terminals and pages; of gradient checks and of certification.

Nothing is said by colour alone: words of one kind have different signs. A sign is written on its colour, with
a contrast of 4.5 or more; colours of one kind differ for colour-blind eyes, too.
"""

from typing import NamedTuple

from refnet.check.report import Word


class Shown(NamedTuple):
    """How a word is shown.

    Attributes
    ----------
    sign : str
        One character.
    colours : tuple of str
        On light ground, and on dark.
    style : str
        On a terminal.
    meaning : str
        What it says of an array.
    """

    sign: str
    colours: tuple[str, str]
    style: str
    meaning: str


WORDS: dict[Word, Shown] = {
    "ok": Shown("✓", ("#2b6cc4", "#6aa6f2"), "", "every element is within its bound"),
    "wrong": Shown("✗", ("#a52a10", "#fb4848"), "bold red", "some element is not"),
    "undecided": Shown("?", ("#9a6d00", "#f0d25c"), "bold yellow", "the check cannot say"),
    "exact": Shown("=", ("#0a3a96", "#a9dcff"), "", "every element is the correctly rounded one"),
    "consistent": Shown("✓", ("#2b6cc4", "#6aa6f2"), "", "with rounding, as claimed"),
    "refused": Shown("?", ("#474747", "#efe9df"), "bold", "nothing can be said"),
    "systematic": Shown(
        "~", ("#9a6d00", "#f0d25c"), "bold yellow", "within bounds, but the differences have structure"
    ),
    "implausible": Shown(
        "!", ("#a52a10", "#f59c5a"), "bold magenta", "within bounds, but more than any natural order errs by"
    ),
    "impossible": Shown("✗", ("#5e0a1a", "#fb4848"), "bold red", "beyond the bound: not rounding"),
    "blocked": Shown("⊘", ("#6b7480", "#98a2b0"), "", "there is no gradient, and should be none"),
}
