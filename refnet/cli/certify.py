"""``refnet certify``."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from refnet import certify as certification
from refnet.check import Verdict
from refnet.check.claims import ALGORITHMS, STORES
from refnet.check.dumped import BLOB, KERNEL
from refnet.check.precision import FORMATS, WAYS
from refnet.cli.certify_start import Start
from refnet.cli.ending import FAILED
from refnet.cli.options import Group, Json, real, takes_groups, title
from refnet.errors import require_known
from refnet.golden import Bundle
from refnet.golden import candidate as candidates
from refnet.render import files, terminal, verdict_page, verdicts


def word(known: tuple[str, ...], help: str, usual: str) -> Any:
    """Declare a claim that is one of a few words."""
    return Annotated[str | None, typer.Option(help=f"{help}: {', '.join(known)}; {usual} if not given.")]


# What a candidate claims of itself; what is not given is as in `refnet.certify.certify`.
CLAIMS = {
    "accumulate": word(STORES, "The format of its sums", "float32"),
    "store": word(STORES, "The format of its blobs and gradients", "float32"),
    "operands": word(tuple(FORMATS), "The format of what its products multiply", "float32"),
    "operand_rounding": word(tuple(WAYS), "How operands are rounded to that", "any"),
    "flush_to_zero": Annotated[
        bool | None, typer.Option("--flush-to-zero", help="What is subnormal may be taken as zero.")
    ],
    "algorithm": word(ALGORITHMS, "How products are summed", "direct"),
    "fused": Annotated[
        list[str] | None,
        typer.Option(metavar="NODE,NODE", help="Nodes that one kernel computes; may be given again."),
    ],
    "axes": Annotated[
        str | None, typer.Option(help=f"The order of its blobs' axes, {BLOB} if not given: NTHWC, ...")
    ],
    "kernel_axes": Annotated[
        str | None, typer.Option(help=f"That of its kernels' axes, {KERNEL} if not given: THWCK, ...")
    ],
    "delta": Annotated[
        float | None,
        typer.Option(
            parser=real, metavar="NUMBER", help="How probable a false alarm may be; 1e-06 if not given."
        ),
    ],
}
KNOWN = {
    "accumulate": STORES,
    "store": STORES,
    "operands": FORMATS,
    "operand_rounding": WAYS,
    "algorithm": ALGORITHMS,
}
Claims = Annotated[dict[str, Any], Group(CLAIMS)]


@takes_groups
def certify(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder; one of hashes only will do.")
    ],
    candidate: Annotated[
        Path,
        typer.Argument(
            metavar="CANDIDATE",
            help="What an implementation computed for it: .npz, .safetensors, a folder of .npy or of ONNX "
            "tensors (.pb), a bundle.",
        ),
    ],
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write a page: verdicts on the graph, margins, failures."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Show what is right too, and every failure in full.")
    ] = False,
    as_json: Json = False,
    *,
    claims: Claims,
) -> None:
    """Judge what another implementation computed, node by node, by bounds that follow from its claims."""
    if html is not None:
        files.require_writable(html, ".html")
    claims = checked(claims)
    golden = Bundle(bundle)
    net = golden.recipe.net()
    found = candidates.read(candidate, net)
    start = Start(
        candidates.given(golden, net),
        found,
        claims.get("store", "float32"),
        claims.get("axes", BLOB),
        claims.get("kernel_axes", KERNEL),
    )
    with terminal.progress_bar(as_json) as progress:
        report = certification.certify(
            net,
            start.given(),
            start.judged(),
            output_gradients=start.output_gradients(),
            progress=progress,
            **claims,
        )
    if start.others:
        report = replace(report, facts={**report.facts, "given otherwise": ", ".join(start.others)})
    command = ["refnet", "certify", str(bundle), str(candidate), *arguments(claims)]
    report = replace(
        report,
        title=f"{candidate} for {title(golden.recipe)}",
        verdicts={
            name: v if v.passes else replace(v, reproduce=shlex.join(command) + place(v))
            for name, v in report.verdicts.items()
        },
    )
    if html is not None:
        terminal.save(html, verdict_page.html(report, net, report.verdicts).encode(), as_json)
    if as_json:
        terminal.print_json(report.record())
    else:
        verdicts.show(report, terminal.screen(), folded=report.verdicts, every=every)
    if not report.ok:
        raise typer.Exit(FAILED)


def checked(claims: Mapping[str, Any]) -> dict[str, Any]:
    """The claims that were made, refused where they are no such words."""
    for claim, value in claims.items():
        if claim in KNOWN:
            require_known(f"--{claim.replace('_', '-')}", value, KNOWN[claim])
    made = {claim: value for claim, value in claims.items() if value != []}
    if "fused" in made:
        made["fused"] = [group.split(",") for group in made["fused"]]
    return made


def arguments(claims: Mapping[str, Any]) -> Iterator[str]:
    """Write claims as they are made on the command line."""
    for claim, value in claims.items():
        option = f"--{claim.replace('_', '-')}"
        if value is True:
            yield option
        elif claim == "fused":
            for group in value:
                yield from (option, ",".join(group))
        else:
            yield from (option, str(value))


def place(verdict: Verdict) -> str:
    """A comment of the shell: which array to look at, and where in it."""
    where = "" if verdict.where is None else f" at {', '.join(map(str, verdict.where))}"
    return f"  # {verdict.tensor}{where}"
