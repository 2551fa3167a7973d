"""Telemetry off, dependencies quiet and lean, for this process and those it starts. Values that the user set stand."""

from __future__ import annotations

import os

DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # its own keeps what was freed; this one gives it back when asked
    "OMP_WAIT_POLICY": "passive",  # a thread of torch's that waits leaves its core to those that make the next batch
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SHOW_UPDATE_NOTIFICATIONS": "false",
}


def quieten() -> None:
    """Set the variables above unless they are set; call it before the packages are imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
