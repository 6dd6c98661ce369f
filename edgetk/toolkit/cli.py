"""The command line: gathers the commands, and turns every error into one sentence and an exit code.

0 ok, 1 error, 2 usage, 3 a goal was missed, 4 an extra is missing, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import edgetk
from edgetk.core.errors import EdgetkError
from edgetk.toolkit.commands import COMMANDS, shared

#: accepted before or after the name of a command
_EVERYWHERE = ("--quiet", "-q", "--verbose", "-v", "--debug")


class _Edgetk(TyperGroup):
    """The group whose `invoke` is the only place that catches errors."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move the options that belong to every command to the front, up to a bare `--`."""
        end = args.index("--") if "--" in args else len(args)
        head, tail = args[:end], args[end:]
        moved = [a for a in head if a in _EVERYWHERE]
        return super().parse_args(ctx, moved + [a for a in head if a not in _EVERYWHERE] + tail)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except (KeyboardInterrupt, Exception) as error:
            code = _explain(error, ctx.invoked_subcommand)
            if code is None:
                raise
            raise typer.Exit(code) from None


def _explain(error: BaseException, command: str | None) -> int | None:
    """Say what went wrong in one sentence on stderr and give the exit code; None for what has to be raised as it is."""
    who = f"edgetk {command}" if command else "edgetk"
    if isinstance(error, KeyboardInterrupt):
        _say(f"{who}: interrupted" + (f"; {_GO_ON}" if command in ("compress", "train") else ""))
        return 130
    if shared.settings.debug or isinstance(error, BrokenPipeError) or type(error).__name__ == "NoArgsIsHelpError":
        return None
    if isinstance(error, EdgetkError):
        _say(str(error))
        return error.exit_code
    if isinstance(error, Exception) and shared.is_usage(error):
        _say(f"{who}: {error.format_message().rstrip('.')} (see: {who} --help)")  # type: ignore[attr-defined]
        return 2
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        _say(f"{who}: {error.strerror or error}{place}; check the path, its permissions and the free space")
        return 1
    _say(f"{who}: {type(error).__name__}: {error}; this is a fault of edgetk, --debug shows the traceback to report")
    return 1


_GO_ON = "what is finished is kept, the same command with --resume goes on from there"


def _say(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr, flush=True)


app = typer.Typer(
    name="edgetk",
    cls=_Edgetk,
    help="Compress small models for constrained boards, export them, prove them equal, report honest figures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"edgetk {edgetk.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what every step took.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Tracebacks instead of one sentence.")] = False,
) -> None:
    shared.settings = shared.Settings(quiet=quiet, verbose=verbose, debug=debug)


for _name, _function in COMMANDS.items():
    app.command(_name)(_function)


def main() -> None:
    """Entry point of the `edgetk` command."""
    app(prog_name="edgetk")


if __name__ == "__main__":
    main()
