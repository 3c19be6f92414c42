"""``refnet certify``."""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from refnet import certify as certification
from refnet.arrays import DTYPES
from refnet.check import Report, Verdict
from refnet.check.bounds import plain
from refnet.check.claims import ALGORITHMS, STORES
from refnet.check.dumped import BLOB, KERNEL
from refnet.check.foreign_kernel import find_kernel
from refnet.check.kernel_trial import examine
from refnet.check.precision import FORMATS, WAYS
from refnet.cli.certify_start import Start
from refnet.cli.ending import FAILED
from refnet.cli.options import (
    MOST_DRAWS,
    Group,
    Json,
    all_options,
    completing,
    dashed,
    in_range,
    made,
    optional_number,
    optional_word,
    real,
    require_none,
    takes_groups,
    title,
)
from refnet.errors import ValueRangeError, require_known
from refnet.golden import Bundle
from refnet.golden import candidate as candidates
from refnet.golden.causes import of_another_run
from refnet.golden.folder import MANIFEST
from refnet.net import Net
from refnet.networks import ARCHITECTURES
from refnet.ops import OPS
from refnet.render import files, tables, terminal, verdict_page, verdicts
from refnet.render.made import today


def claim(known: tuple[str, ...], help: str, usual: str) -> Any:
    """Declare a claim that is one of a few words."""
    return optional_word(known, f"{help}. [default: {usual}]")


# What a candidate claims of itself; what is not given is as in `refnet.certify.certify`.
CLAIMS = {
    "accumulate": claim(STORES, "The format of its sums", "float32"),
    "store": claim(STORES, "The format of its blobs and gradients", "float32"),
    "operands": claim(tuple(FORMATS), "The format of what its products multiply", "float32"),
    "operand_rounding": claim(tuple(WAYS), "How operands are rounded to that", "any"),
    "flush_to_zero": Annotated[
        bool | None, typer.Option("--flush-to-zero", help="What is subnormal may be taken as zero.")
    ],
    "algorithm": claim(ALGORITHMS, "How products are summed", "direct"),
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


# A kernel under test, and what it is examined on.
TRIAL = {
    "kernel": Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Examine it as the kernel of OP: a function, a Kernel, or an arithmetic's own.",
        ),
    ],
    "seed": optional_number("Of all that a kernel is examined on; 0 if not given."),
    "draws": optional_number("Geometries drawn beside the operator's cases; 32 if not given."),
    "dtype": optional_word(DTYPES, "Of what a kernel is given. [default: float32]"),
}
Trial = Annotated[dict[str, Any], Group(TRIAL)]


@takes_groups
def certify(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE|OP",
            autocompletion=completing(OPS),
            help="A bundle's folder, one of hashes only will do; with --kernel an operator: conv3d.",
        ),
    ],
    candidate: Annotated[
        Path | None,
        typer.Argument(
            metavar="CANDIDATE",
            help="What an implementation computed for the bundle: .npz, .safetensors, a folder of .npy or "
            "of ONNX tensors (.pb), a bundle.",
        ),
    ] = None,
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
    trial: Trial,
) -> None:
    """Judge another implementation. Node by node, by bounds that follow from what it claims."""
    if html is not None:
        files.require_writable(html, ".html")
        today()
    claims = checked(claims)
    net = None
    if "kernel" in trial:
        facts = {"operator": subject, **trial}
        report = examined(subject, candidate, claims, trial, as_json)
    else:
        require_none(trial, "there is no kernel: expected --kernel too")
        require_bundle(subject, candidate)
        if candidate is None:
            raise ValueRangeError(f"nothing is to be judged by {subject}: expected BUNDLE CANDIDATE")
        bundle = Bundle(subject)
        require_same_run(bundle, candidate)
        net = bundle.net()
        facts = all_options(bundle.recipe) | {"seed": bundle.recipe.seed}
        report = compared(bundle, net, candidate, claims, as_json)
    if html is not None:
        facts |= {dashed(name)[2:]: value for name, value in claims.items()}
        terminal.save(html, verdict_page.html(report, net, made=made(html, facts)).encode(), as_json)
    if as_json:
        terminal.print_json(report.record())
    else:
        verdicts.show(report, terminal.screen(), folded=report.verdicts if net else (), every=every)
    if not report.ok:
        raise typer.Exit(FAILED)


def require_bundle(subject: str, candidate: Path | None) -> None:
    """Refuse an operator or an architecture where a bundle is expected, and say what judges by it."""
    if Path(subject).exists():
        return
    if subject in OPS:
        kernel = candidate or "MODULE:FUNCTION"
        raise ValueRangeError(
            f"{subject} is an operator: expected refnet certify --kernel {kernel} {subject}"
        )
    if subject in ARCHITECTURES:
        raise ValueRangeError(
            f"{subject} is an architecture: expected a bundle: refnet golden make {subject} BUNDLE"
        )


def require_same_run(bundle: Bundle, candidate: Path) -> None:
    """Refuse a bundle of another network, or of other values that it was given."""
    if (candidate / MANIFEST).is_file():
        other = Bundle(candidate)
        if found := of_another_run(bundle, other):
            raise ValueRangeError(
                f"the recipes differ: {tables.differences(found, (bundle, other))}; "
                f"expected a candidate for {title(bundle.recipe)}, seed {bundle.recipe.seed}"
            )


def compared(bundle: Bundle, net: Net, candidate: Path, claims: Mapping[str, Any], quiet: bool) -> Report:
    """Judge a candidate; each failure has the command that shows it again."""
    start = Start(
        candidates.given(bundle, net),
        candidates.read(candidate, net),
        claims.get("store", "float32"),
        claims.get("axes", BLOB),
        claims.get("kernel_axes", KERNEL),
    )
    with terminal.progress_bar(quiet) as progress:
        found = certification.certify(
            net,
            start.given(),
            start.judged(),
            output_gradients=start.output_gradients(),
            progress=progress,
            **claims,
        )
    facts = {"given otherwise": ", ".join(start.others)} if start.others else {}
    command = ["refnet", "certify", str(bundle.path), str(candidate), *arguments(claims)]
    return replace(
        with_command(found, command),
        title=f"{candidate} for {title(bundle.recipe)}",
        facts={**found.facts, **facts},
    )


def examined(
    op: str, candidate: Path | None, claims: Mapping[str, Any], trial: Mapping[str, Any], quiet: bool
) -> Report:
    """Examine a kernel; each failure has the command that shows it again."""
    why = "a kernel is examined: expected claims of its arithmetic alone"
    require_none({claim: claims.get(claim) for claim in ("fused", "axes", "kernel_axes", "delta")}, why)
    if candidate is not None:
        raise ValueRangeError(f"{candidate} is given, but a kernel is examined: expected OP alone")
    if trial["kernel"] in OPS and ":" in op:
        given = f"the kernel is {trial['kernel']} and the operator {op}"
        raise ValueRangeError(f"{given}: expected --kernel {op} {trial['kernel']}")
    require_known("operator", op, OPS)
    options = {name: value for name, value in trial.items() if name != "kernel"}
    if "draws" in options:
        in_range("--draws", options["draws"], MOST_DRAWS)
    dtype = options.get("dtype", "float32")
    require_known("--dtype", dtype, DTYPES)
    kernel = find_kernel(trial["kernel"])
    with terminal.progress_bar(quiet) as progress:
        found = examine(
            op,
            kernel,
            claim=plain(dtype)._replace(**claims),
            title=trial["kernel"],
            progress=progress,
            **options,
        )
    return with_command(found, ["refnet", "certify", op, *arguments(trial), *arguments(claims)])


def with_command(report: Report, command: Iterable[str]) -> Report:
    """Give each failure the command that shows it again, and the place to look at."""
    again = {
        name: replace(v, reproduce=shlex.join(command) + place(v))
        for name, v in report.verdicts.items()
        if not v.passes
    }
    return replace(report, verdicts={**report.verdicts, **again})


def checked(claims: Mapping[str, Any]) -> dict[str, Any]:
    """The claims that were made, refused where they are no such words."""
    for claim, value in claims.items():
        if claim in KNOWN:
            require_known(dashed(claim), value, KNOWN[claim])
    if "operand_rounding" in claims and "operands" not in claims:
        given = f"--operand-rounding {claims['operand_rounding']}"
        raise ValueRangeError(f"{given} is given, but operands are not rounded: expected --operands too")
    made = {claim: value for claim, value in claims.items() if value != []}
    if "fused" in made:
        made["fused"] = [group.split(",") for group in made["fused"]]
    return made


def arguments(claims: Mapping[str, Any]) -> Iterator[str]:
    """Write claims as they are made on the command line."""
    for claim, value in claims.items():
        option = dashed(claim)
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
