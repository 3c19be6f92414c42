"""The application: commands, signals, expected failures."""

import re
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from refnet import machine
from refnet.cli.bench import bench, require_no_subject
from refnet.cli.bench_diff import bench_diff
from refnet.cli.certify import certify
from refnet.cli.ending import UNUSABLE, fail, say
from refnet.cli.golden_diff import diff
from refnet.cli.golden_make import make
from refnet.cli.golden_show import show
from refnet.cli.golden_verify import verify
from refnet.cli.gradcheck import gradcheck
from refnet.cli.info import info
from refnet.cli.list import list_architectures
from refnet.cli.options import as_options, computes
from refnet.cli.output import unminding
from refnet.cli.trace import trace
from refnet.errors import RefnetError, ValueRangeError

STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")


def refuse_opposites(params: Iterable[Any], args: Sequence[str]) -> None:
    """Refuse both of two opposite options."""
    for param in params:
        given = [next((o for o in of if o in args), None) for of in (param.opts, param.secondary_opts)]
        if all(given):
            raise ValueRangeError(f"{' and '.join(map(str, given))} contradict each other: expected one")


class Command(TyperCommand):
    """A command that takes no two opposite options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what is given."""
        refuse_opposites(self.get_params(ctx), args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run it; of an error, what is a parameter in Python is an option here, or is left out."""
        try:
            return super().invoke(ctx)
        except RefnetError as error:
            error.args = (as_options(str(error)),)
            helps = "allow_nonfinite" in ctx.params and (ctx.params["clip"] or ctx.params["params"])
            option = r" (or --allow-nonfinite\1)" if helps else ""
            error.args = (re.sub(r" \(or allow_nonfinite([^)]*)\)", option, str(error)),)
            raise


class Group(TyperGroup):
    """A command that has others below it, and takes no two opposite options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what is given."""
        refuse_opposites(self.get_params(ctx), args)
        return super().parse_args(ctx, args)


class Benches(Group):
    """`bench`: what it measures is named by options, and no word."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command below it."""
        require_no_subject(args[0])
        return super().resolve_command(ctx, args)


app = typer.Typer(
    help="A correctness oracle for 3D residual networks: golden values, on any CPU.",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    pretty_exceptions_enable=False,
)
golden = typer.Typer(help="Golden bundles: make, show, verify, compare.")
benches = typer.Typer(callback=bench, invoke_without_command=True, cls=Benches)
app.command("list", cls=Command)(list_architectures)
for command in (info, trace, computes(gradcheck), computes(certify)):
    app.command(cls=Command)(command)
for command in (computes(make), show, computes(verify), diff):
    golden.command(cls=Command)(command)
benches.command("diff", cls=Command)(bench_diff)
app.add_typer(benches, name="bench")
app.add_typer(golden, name="golden")


def version_option(asked: bool) -> None:
    """Print the version and stop."""
    if asked:
        print(f"refnet {machine.facts()['refnet']}")
        raise typer.Exit


@golden.callback(invoke_without_command=True)
def explain(context: typer.Context) -> None:
    """Show what there is, where no command is given."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(UNUSABLE)


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=version_option, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Take what goes before a command."""
    explain(context)


def main() -> NoReturn:
    """Run the command line; every expected failure is one line on standard error."""
    for number in (getattr(signal, name) for name in STOPPING if hasattr(signal, name)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a job in the background
            signal.signal(number, terminate)
    sys.stdout = unminding(sys.stdout)
    try:
        code = app(prog_name="refnet", standalone_mode=False)
        sys.stdout.flush()
    except RefnetError as error:
        fail(str(error), UNUSABLE)
    except typer.TyperException as error:
        fail(error.format_message(), UNUSABLE)
    except Stopped as stopped:
        sys.exit(stopped.code)
    except MemoryError:
        fail("out of memory: take a smaller input, or float32", UNUSABLE)
    except OSError as error:
        fail(f"{error.filename or 'standard output'}: {error.strerror}", UNUSABLE)
    sys.exit(code if isinstance(code, int) else 0)


class Stopped(BaseException):
    """A signal has come; what is half-done is being undone.

    No SystemExit: a check takes that for what a kernel under test has done.
    """

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


def terminate(number: int, frame: object) -> None:
    """Unwind, so that nothing half-written stays; what comes while that goes on changes nothing."""
    handled = sys.exception()
    while handled is not None:
        if isinstance(handled, Stopped):
            return
        handled = handled.__context__
    say(f"stopped by {signal.Signals(number).name}")
    raise Stopped(128 + number)
