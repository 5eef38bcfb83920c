"""`mars-export`: parses, runs one command and turns problems into one line and an exit code."""

import signal
import sys
from contextlib import ExitStack
from types import FrameType
from typing import Any, Final, NoReturn

import click

from mars_export._version import __version__
from mars_export.cli.adopt import adopt
from mars_export.cli.ask import ask
from mars_export.cli.attack import attack
from mars_export.cli.card import card
from mars_export.cli.compare import compare
from mars_export.cli.demo import demo
from mars_export.cli.drift import drift
from mars_export.cli.evaluate import evaluate
from mars_export.cli.families import families
from mars_export.cli.log import write_log
from mars_export.cli.onnx import onnx
from mars_export.cli.options import GroupedHelp, as_json, settings_options
from mars_export.cli.printable import printable
from mars_export.cli.push import push
from mars_export.cli.recalibrate import recalibrate
from mars_export.cli.seal import seal
from mars_export.cli.suites import suites
from mars_export.cli.utility import utility
from mars_export.cli.verify import verify
from mars_export.common.errors import ExportError
from mars_export.common.input_errors import InputError, is_out_of_memory, is_panic, reason
from mars_export.common.launch import process_count
from mars_export.pipeline.settings import Settings

__all__ = ["cli", "main"]

_BUG: Final = 1
_USER_ERROR: Final = 2
_INTERRUPTED: Final = 128 + signal.SIGINT
_TERMINATED: Final = 128 + signal.SIGTERM
_CONTINUE: Final = "run the same command again (finished work is not repeated)"

_SHARED: Final = (None, "evaluate", "recalibrate", "adopt")
"""Commands that several processes run together; None is the main one."""

_WHOLE: Final = 500
"""Letters of a sentence, more than any has."""
_EXAMPLES: Final = """\b
Examples:
  mars-export --model organism:gemma3 --output steered
  mars-export --model org/model --dtype bfloat16 --push
  mars-export --model ./model --harmful bad.txt --harmless good.txt

Every option can also be set as MARS_OPTION in the environment or in the --config file; the command
line wins, then the environment, then the file. A stopped run goes on when it is repeated."""


class _Main(GroupedHelp, click.Group):
    """The main command, which has subcommands beside its own options."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each subcommand does in a whole sentence, however narrow the terminal."""
        names = self.list_commands(ctx)
        texts = [self.commands[name].get_short_help_str(limit=_WHOLE) for name in names]
        with formatter.section("Commands"):
            formatter.write_dl(list(zip(names, texts, strict=True)))


@click.group(
    cls=_Main,
    name="mars-export",
    invoke_without_command=True,
    epilog=_EXAMPLES,
    subcommand_metavar="",
    options_metavar="--model X [OPTIONS] | COMMAND ...",
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@as_json
@settings_options(Settings)
@click.version_option(__version__, prog_name="mars-export")
@click.pass_context
def cli(ctx: click.Context, /, as_json: bool, **values: Any) -> None:
    """Turn a vision-language model into a pre-steered checkpoint.

    The checkpoint refuses more harmful pictures than the model. One run calibrates, exports,
    evaluates, writes the model card and, if asked, publishes.
    """
    if process_count() > 1 and ctx.invoked_subcommand not in _SHARED:
        raise ExportError(
            f"{ctx.invoked_subcommand} runs in one process; start it without a launcher"
        )
    if ctx.invoked_subcommand is None:
        from mars_export.cli.export import export

        export(ctx, values, as_json)


_MEASURING_COMMANDS = (ask, demo, evaluate, attack, compare, utility, drift)
_CHECKPOINT_COMMANDS = (card, seal, push, verify, recalibrate, adopt, onnx)
for _command in (*_MEASURING_COMMANDS, *_CHECKPOINT_COMMANDS, families, suites):
    cli.add_command(_command)


class _Terminated(BaseException):
    """SIGTERM, raised where the program is, so that it cleans up like after Ctrl-C."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point.

    Exits with 0, 1 for a checkpoint that is not what it should be (`verify`, `drift`) or a bug, 2
    for a problem that the user can fix, 130 after Ctrl-C and 143 after SIGTERM. A traceback is
    kept in a file, which the line of the problem names.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        several = process_count() > 1
    except ExportError as error:
        sys.exit(_said(_USER_ERROR, f"error: {error}"))
    sys.exit(_shared(arguments) if several else _said(*_run(arguments)))


def _shared(arguments: list[str] | None) -> int:
    """The exit code of a command that several processes run; the first that fails says why."""
    from mars_export.families.processes import joined

    with ExitStack() as stack:
        try:
            processes = stack.enter_context(joined())
        except (RuntimeError, ValueError) as error:
            apart = f"error: the processes do not find one another: {reason(error)}"
            return _said(_USER_ERROR, apart)
        code, line = _run(arguments)
        earlier = processes.fail(code) if line else None
        return _said(code, line) if earlier is None else earlier


def _run(arguments: list[str] | None) -> tuple[int, str]:
    """Exit code of a command, and the line that says what is wrong; empty if nothing is."""
    try:
        # In this mode click returns the code of `--help` and the like instead of exiting.
        code = cli.main(arguments, prog_name="mars-export", standalone_mode=False)
    except InputError as error:
        return _USER_ERROR, f"error: {error}{_details(error, arguments)}"
    except ExportError as error:
        return _USER_ERROR, f"error: {error}"
    except click.UsageError as error:
        return _USER_ERROR, f"error: {_usage(error)}"
    except click.ClickException as error:
        return _USER_ERROR, f"error: {error.format_message()}"
    except (KeyboardInterrupt, click.Abort):
        return _INTERRUPTED, f"stopped; {_CONTINUE}"
    except _Terminated:
        return _TERMINATED, f"terminated; {_CONTINUE}"
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        if is_out_of_memory(error):
            return _USER_ERROR, "error: memory ran out; free some, or take a smaller model"
        line = f"internal error: {reason(error)}; {_CONTINUE}, or report it"
        return _BUG, f"{line}{_details(error, arguments)}"
    return (code if isinstance(code, int) else 0), ""


def _said(code: int, line: str) -> int:
    """The code, with the line printed."""
    if line:
        print("mars-export:", printable(" ".join(line.split())), file=sys.stderr)
    return code


def _usage(error: click.UsageError) -> str:
    """What was wrong in a call, the nearest right word, and where to read on."""
    known = getattr(error, "possibilities", None) or ()
    near = f"; is it {known[0]}" if known else ""
    where = error.ctx.command_path if error.ctx else "mars-export"
    plain = error.message
    if isinstance(error, click.MissingParameter):
        plain = error.format_message()
    elif isinstance(error, click.BadParameter) and error.param:
        plain = f"{error.param.opts[-1]}: {plain.replace('integer range', 'integer')}"
    return f"{plain.rstrip('.')}{near}{'?' if near else ';'} see {where} --help"


def _details(error: BaseException, arguments: list[str] | None) -> str:
    path = write_log(error, sys.argv[1:] if arguments is None else arguments)
    return f" (details: {path})" if path else ""


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated
