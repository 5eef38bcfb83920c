"""`mars-export ask DIR QUESTION`: one answer with steering off and one with steering on."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mars_export.cli.options import (
    DIRECTORY,
    GroupedHelp,
    as_json,
    print_json,
    read_settings,
    settings_options,
)
from mars_export.cli.printable import printable
from mars_export.common.quiet import quiet_libraries
from mars_export.pipeline.settings import AnswerSettings

if TYPE_CHECKING:
    from mars_export.evaluation.ask import Replies, Reply

__all__ = ["ask"]

_FILE: Final = click.Path(path_type=Path)


@click.command(cls=GroupedHelp)
@click.argument("directory", type=DIRECTORY)
@click.argument("question")
@click.option(
    "--image",
    "images",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="Picture to show before the question; may be given several times.",
)
@click.option(
    "--video",
    "videos",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="Video file or folder of frames to show; may be given several times.",
)
@click.option(
    "--audio",
    "sounds",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="Sound file to play, without --image and --video; may be given several times.",
)
@as_json
@settings_options(AnswerSettings, without=("suite", "judge", "batch_size"))
@click.pass_context
def ask(
    ctx: click.Context,
    /,
    directory: Path,
    question: str,
    images: tuple[Path, ...],
    videos: tuple[Path, ...],
    sounds: tuple[Path, ...],
    as_json: bool,
    **values: Any,
) -> None:
    """Ask the steered DIRECTORY one QUESTION, with steering off and on.

    Prints both answers, with the gate and the push where the answer begins.
    """
    settings = read_settings(AnswerSettings, ctx, values)
    from mars_export.common.progress import progress_for
    from mars_export.evaluation.ask import ask as run

    quiet_libraries()
    with progress_for(settings.display).stage("ask"):
        replies = run(
            directory,
            question,
            images,
            videos,
            sounds,
            max_new_tokens=settings.max_new_tokens,
            device=settings.where,
        )
    if as_json:
        print_json(replies)
    else:
        click.echo(printable("\n\n".join(_told(reply) for reply in replies.replies)))
        for line in _notes(replies):
            click.echo(printable(line), err=True)


def _told(reply: "Reply") -> str:
    """An answer below what steering did."""
    did = [] if reply.decision is None else [f"{reply.decision.modality or 'any'} request"]
    if reply.decision is not None:
        for name, value in (("gate", reply.decision.gate), ("push", reply.decision.strength)):
            did += [] if value is None else [f"{name} {value:.2f}"]
    if reply.push is not None:
        did.append(f"{reply.push:.1%} of the residual stream")
    heading = f"steering {reply.steering}" + (f": {', '.join(did)}" if did else "")
    answer = textwrap.indent(reply.answer.strip() or "(empty)", "  ")
    return f"{heading}\n{answer}" + (" ..." if reply.cut else "")


def _notes(replies: "Replies") -> Iterator[str]:
    """What a reader of the answers should know."""
    if any(reply.cut for reply in replies.replies):
        yield "note: an answer was cut off (...); --max-new-tokens N takes longer ones"
    if any(r.decision is not None and r.decision.calibrated is False for r in replies.replies):
        yield "note: the calibration does not cover such a request; see docs/running.md"
