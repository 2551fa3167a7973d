"""Who carries out the shards of an audit: this process, or workers of a Dask cluster.

A worker is handed the audit's folder, a stage's name and a shard's number; it reads and writes the stores itself, loads
each model once, and may die: its shards are given to another worker, and what it had stored stays.
"""

from __future__ import annotations

import os
import socket
from typing import Any
from urllib.parse import urlsplit

from prefect.task_runners import ThreadPoolTaskRunner

from pipeline.errors import UserError

KNOWN = "Runners: threads (this process), dask (a worker a core), dask:N (N workers), dask:ADDRESS (a running cluster)."


def runner_of(name: str) -> Any:
    """The task runner of this name: "threads", "dask", "dask:4", "dask:tcp://10.0.0.1:8786".

    One thread runs one shard at a time: a shard fills the machine, and models are not shared between threads. Local
    workers share the cores between them.

    Raises:
        UserError: an unknown name, nothing answers at the address, or prefect-dask isn't installed.
    """
    kind, _, which = name.partition(":")
    if kind == "threads" and not which:
        return ThreadPoolTaskRunner(max_workers=1)
    if kind != "dask" or (which and not which.isdigit() and "://" not in which):
        raise UserError(f"--runner '{name}' is unknown. {KNOWN}")
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError:
        raise UserError("--runner dask needs prefect-dask: pip install 'cuescope[dask]'") from None
    if which and not which.isdigit():
        check_reachable(which)
        return DaskTaskRunner(address=which)
    cores = os.cpu_count() or 1
    workers = int(which) if which else cores
    if workers < 1:
        raise UserError("--runner dask:0 has no worker. Give at least one.")
    return DaskTaskRunner(
        cluster_kwargs={
            "n_workers": workers,
            "threads_per_worker": 1,
            "processes": True,
            "dashboard_address": None,
            "env": {"OMP_NUM_THREADS": str(max(cores // workers, 1))},
        }
    )


def check_reachable(address: str) -> None:
    """Dask tries for half a minute and then ends in its own words."""
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"--runner: no Dask scheduler answers at {address} ({error}). Start one with 'dask scheduler', and workers "
            "with 'dask worker ADDRESS --nthreads 1' where Cuescope is installed."
        ) from None
