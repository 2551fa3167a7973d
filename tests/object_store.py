"""An S3-compatible server on loopback (moto's), as a context manager; programs find it by their environment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

BUCKET = "s3://bucket"


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Its environment variables, which are set meanwhile; there is a bucket."""
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    try:
        with mock.patch.dict(os.environ, environment):
            fsspec.filesystem("s3").clear_instance_cache()  # of another server
            with contextlib.suppress(FileExistsError):  # of an earlier server of this process: they share their state
                fsspec.filesystem("s3").mkdir("bucket")
            yield environment
            fsspec.filesystem("s3").clear_instance_cache()
    finally:
        server.stop()
