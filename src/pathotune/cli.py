"""The command line: the window's jobs, for scripts.

Scripts rely on three things: with ``--json`` standard output holds one JSON
object and nothing else, everything that is said on the way goes to standard
error, and the exit code tells whose turn it is (0 done, 2 the input is at
fault, 1 the program is). Each command is a file in `commands`.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from pathotune import __version__, plugins
from pathotune._console import Teller, plain
from pathotune.commands._common import STORY
from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = "pathotune.commands"
ORDER = (
    "info",
    "tissue",
    "methods",
    "train",
    "eval",
    "predict",
    "nuclei",
    "eval_nuclei",
    "refine_nuclei",
    "learn_nuclei",
    "models",
    "doctor",
    "demo",
)  # as a user meets them
DONE, OUR_FAULT, USERS_TURN, INTERRUPTED = 0, 1, 2, 130
OUT_OF_OUR_HANDS = {  # what the machine refuses, whoever asks; what to do about it
    errno.ENOSPC: "Make room on the disk, or choose another folder.",
    errno.EDQUOT: "Make room on the disk, or choose another folder.",
    errno.EACCES: "Choose a file or folder that you may use.",
    errno.EPERM: "Choose a file or folder that you may use.",
    errno.EROFS: "Choose a folder that can be written to.",
    errno.EIO: "Copy the file to another disk and try again.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        """Leave with code 2."""
        self.exit(USERS_TURN, f"{self.prog}: {message}. See {self.prog} --help.\n")


def _seed(text: str) -> int:
    """Return a seed; random generators take no negative ones."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value


def _shared() -> _Parser:
    shared = _Parser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print one JSON object")
    shared.add_argument(
        "--seed", type=_seed, metavar="N", default=0, help="seed of all random numbers"
    )
    shared.add_argument("--device", choices=("auto", "cpu", "cpu-f32", "cuda"), default="auto")
    shared.add_argument("--offline", action="store_true", help="never use the network")
    return shared


def parser() -> _Parser:
    """Return the parser of all commands."""
    top = _Parser(prog="pathotune", description="Class maps of whole-slide images.")
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = _shared()
    known = plugins.names(COMMANDS)
    for name in (*ORDER, *(n for n in known if n not in ORDER)):
        module = plugins.load(COMMANDS, name)
        command = commands.add_parser(
            getattr(module, "NAME", name),
            help=module.TEXT,
            description=module.TEXT,
            parents=[shared],
            aliases=getattr(module, "ALIASES", ()),
        )
        command.set_defaults(run=module.run)
        module.arguments(command)
    return top


def _joined(words: Sequence[str]) -> list[str]:
    """Tie a region that begins left of the slide to its option; alone it looks like an option."""
    out: list[str] = []
    for word in words:
        if out and out[-1] == "--region" and word[:1] == "-" and word[1:2].isdigit():
            out[-1] = f"--region={word}"
        else:
            out.append(word)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    args = parser().parse_args(_joined(sys.argv[1:] if argv is None else argv))
    if args.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    tell = Teller(sys.stderr)
    result = None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what matters is told in our words
    try:
        with contextlib.redirect_stdout(sys.stderr):  # libraries that chat on standard output
            result = args.run(args, tell)
        tell.close()
        story = result.pop(STORY, None)
        if args.json:
            print(json.dumps(result, allow_nan=False), flush=True)
        else:
            print(story or plain(result), flush=True)
    except PathotuneError as error:
        return _refuse(tell, str(error))
    except BrokenPipeError:
        _hang_up()
        return DONE if result is not None else INTERRUPTED
    except KeyboardInterrupt:
        tell.close()
        print("Stopped.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  (the last resort: say whose fault it is)
        if isinstance(error, OSError) and error.errno in OUT_OF_OUR_HANDS:
            where = f" ({error.filename})" if error.filename else ""
            return _refuse(tell, f"{error.strerror}{where}. {OUT_OF_OUR_HANDS[error.errno]}")
        tell.close()
        traceback.print_exc()
        print("This is a fault of the program, not of your input.", file=sys.stderr)
        return OUR_FAULT
    return DONE


def _refuse(tell: Teller, words: str) -> int:
    tell.close()
    print(" ".join(words.split()), file=sys.stderr)
    return USERS_TURN


def _hang_up() -> None:
    """Let the interpreter flush into nothing: whoever read our output (`| head`) has left."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nothing, stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
