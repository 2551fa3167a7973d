"""Runs of an audit in processes that can be killed, quickly: one interpreter imports everything once and forks.

    python -m tests.chaos.harness

reads a JSON object a line and writes one back. The request: `config`, `out`, and perhaps `kill_at` (an event of the
file system, counted from 1) and `delay` (seconds after it). The child audits with `pipeline.chain.run_audit`, as
`cuescope discover --no-prefect` does; at the event it tells its parent, which sends SIGKILL after the delay. The
answer: `code` (negative: the signal), `events` (how many the run saw, if it lived), `stage`, and `said` (a UserError).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WATCHED = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.chmod"})


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Fork, run the audit, perhaps kill it."""
    out_end, in_end = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(out_end)
        os._exit(child(request, in_end))
    os.close(in_end)
    told, deadline = b"", None
    while True:
        wait = None if deadline is None else max(deadline - time.monotonic(), 0)
        if not select.select([out_end], [], [], wait)[0]:
            os.kill(pid, signal.SIGKILL)
            break
        piece = os.read(out_end, 4096)
        if not piece:
            break
        told += piece
        if b"now\n" in told and deadline is None:
            deadline = time.monotonic() + request.get("delay", 0.0)
    _, status = os.waitpid(pid, 0)
    os.close(out_end)
    lines = [json.loads(line) for line in told.decode().splitlines() if line.startswith("{")]
    return {"code": os.waitstatus_to_exitcode(status), **(lines[-1] if lines else {})}


def child(request: dict[str, Any], tell: int) -> int:
    from pipeline import chain
    from pipeline.config import Audit
    from pipeline.errors import UserError

    seen, stage = 0, ["prepare"]
    base = str(Path(request["config"]).parent)

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event not in WATCHED or not arguments or not str(arguments[0]).startswith(base):
            return
        seen += 1
        if seen == request.get("kill_at"):
            os.write(tell, (json.dumps({"stage": stage[-1]}) + "\nnow\n").encode())
            if not request.get("delay"):
                time.sleep(60)  # exactly here

    def noted(step: Any) -> Any:
        return lambda name, *rest: (stage.append(name), step(name, *rest))[1]

    chain.run_once, chain.run_shard = noted(chain.run_once), noted(chain.run_shard)
    sys.addaudithook(hook)
    said = ""
    try:
        chain.run_audit(Audit.from_yaml(request["config"]), request["out"])
    except UserError as error:
        said = str(error)
    os.write(tell, (json.dumps({"events": seen, "stage": stage[-1], "said": said}) + "\n").encode())
    return 2 if said else 0


class Harness:
    """The other end: `with Harness() as run: run(config, out, kill_at=7)`."""

    def __enter__(self) -> Harness:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.harness"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        return self

    def __exit__(self, *_: Any) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()

    def __call__(self, config: Path, out: Path, **more: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"config": str(config), "out": str(out), **more}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def main() -> None:
    """Import once what an audit imports, then answer."""
    from pipeline.quiet import quieten

    quieten()
    import cv2  # noqa: F401
    import faiss  # noqa: F401
    import scipy.stats  # noqa: F401

    import pipeline.chain  # noqa: F401
    import tests.fakes  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
