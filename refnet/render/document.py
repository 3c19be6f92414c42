"""A page of HTML around what is in it: everything inside one file, nothing loaded from elsewhere."""

import re
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from itertools import chain, count

from refnet.errors import printable


def document(title: str, styles: str, body: str, script: str = "") -> str:
    """Write a page that can load nothing: a policy in its head forbids it.

    Parameters
    ----------
    title : str
    styles, body, script : str
        CSS, HTML, JavaScript.
    """
    scripts = " script-src 'unsafe-inline'" if script else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"style-src 'unsafe-inline';{scripts}\">"
        f"<title>{escaped(title)}</title><style>{styles}</style></head><body>"
        f"{body}{f'<script>{script}</script>' if script else ''}</body></html>\n"
    )


def escaped(words: str) -> str:
    """A text as HTML has it; what is no printable character is seen as an escape."""
    return escape(printable(words))


def anchors(names: Iterable[str]) -> dict[str, str]:
    """An identifier on a page for each name: the name itself, but for characters that no link can have.

    None begins with ~, which is for identifiers of the page's own.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        wanted = re.sub("[^A-Za-z0-9_.:/-]", "-", name) or "-"
        tried = chain([wanted], (f"{wanted}.{i}" for i in count(2)))
        found[name] = next(anchor for anchor in tried if anchor not in taken)
        taken.add(found[name])
    return found


def asset(name: str) -> str:
    """The text of a file that lies beside this one."""
    return (files("refnet.render") / name).read_text(encoding="utf-8")


def section(title: str, body: str) -> str:
    """A part of a page, with its heading."""
    return f"<section><h2>{title}</h2>{body}</section>"


def themes(colours: Iterable[tuple[str, tuple[str, str]]]) -> str:
    """Declare colours for style sheets, each by name, on light ground and on dark."""
    pairs = list(colours)
    light = "".join(f"--{name}:{colour};" for name, (colour, _) in pairs)
    dark = "".join(f"--{name}:{colour};" for name, (_, colour) in pairs)
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
