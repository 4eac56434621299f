"""The demo: a year of real purchases through the real system, by the commands and clients that users have.

A consumer like any other: everything that is about the Complete Journey data set lies in this package, and nothing here
is needed by anything else. In: settings, and the local stack if it is to be used. Out: a table on the screen, a summary.

    purchases.py   the data, converted once into files that `streamrec import` takes
    stage.py       servers, a fresh prefix, two workers; all of it ended again, however the demo ends
    gauges.py      what the workers say of themselves (/metrics), as rates and quantiles
    quality.py     hit@10 of the lists and of plain popularity
    live.py        the last week at a multiple of its own speed
    screen.py      the table while it runs, or plain lines where there is no terminal
    renewal.py     a release that is trained beside the live week
    words.py       one household's list in words
    summary.py     what is said at the end
    play.py        the order of it all
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumers.demo.scale import Scale

if TYPE_CHECKING:
    from infra.settings import Settings
    from infra.stack import LocalStack

__all__ = ["Scale", "run"]


def run(settings: Settings, *, stack: LocalStack | None = None, keep: bool = False, light: bool = False, scale: Scale | None = None) -> int:
    """Play the demo; returns 0, raises a StreamrecError that says what is missing or went wrong.

    stack: the local servers, started here where they do not run, and then ended here unless `keep`; None: the servers of
    the settings are used as they are. light: no release is trained beside it. Whatever else happens, no process that this started is left, also after Ctrl-C.
    """
    from consumers.demo.play import play

    play(settings, stack, keep=keep, light=light, scale=scale or Scale())
    return 0
