"""The command `cuescope review`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def review(
    audit: Annotated[Path, Parameter(help="an audit's folder")],
    *,
    port: Annotated[int, Parameter(help="where to listen on this machine; 0: any port that is free")] = 0,
    browser: Annotated[bool, Parameter(negative="--no-browser", help="open the page in the browser")] = True,
) -> None:
    """Go through an audit's findings in the browser and say which cues are spurious, core, or not there at all.

    Verdicts are kept at once, as `cuescope import-verdicts` keeps them; this audit's findings heed them when you pause,
    later audits of the data set from the start. Only this machine can reach the page. Stop with Ctrl-C.
    """
    from pipeline.review.desk import Desk
    from pipeline.review.server import Server, serve
    from pipeline.store import AuditFolder

    desk = Desk(AuditFolder.open(audit))
    server = Server(desk, port)
    print(f"Review at {server.address}\nCtrl-C ends it.", flush=True)
    if browser:
        import webbrowser

        webbrowser.open(server.address)
    serve(desk, server)
