"""Against moto's server: the real s3fs and botocore over HTTP on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UserError
from tests.sources.conftest import rows
from tests.sources.test_manifest import table_of, write
from tests.sources.test_webdataset import write_shards

s3fs = pytest.importorskip("s3fs")
server_module = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def bucket(pictures: Path, tmp_path_factory: pytest.TempPathFactory):
    base = tmp_path_factory.mktemp("s3")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        host, port = server.get_host_and_port()
        storage = {"endpoint_url": f"http://{host}:{port}"}
        files = s3fs.S3FileSystem(**storage)
        files.mkdir("pictures")
        for file in pictures.glob("*/*.png"):
            files.pipe(f"pictures/set/{file.relative_to(pictures).as_posix()}", file.read_bytes())
        files.pipe("pictures/set/list.csv", write(base / "list.csv", table_of(pictures)).read_bytes())
        for shard in write_shards(pictures, base / "shards", "cls").iterdir():
            files.pipe(f"pictures/shards/{shard.name}", shard.read_bytes())
        yield storage
    server.stop()


def test_folder_manifest_and_shards_in_a_bucket(bucket: dict, audited, from_folder) -> None:
    folder = audited({"source": "folder", "path": "s3://pictures/set", "storage": bucket})
    assert (folder.path / "images.parquet").read_bytes() == (from_folder.path / "images.parquet").read_bytes()
    table = audited({"source": "manifest", "path": "s3://pictures/set/list.csv", "storage": bucket})
    assert rows(table, "images") == rows(from_folder, "images")
    assert rows(table, "predictions") == rows(from_folder, "predictions")
    data = {"source": "webdataset", "path": "s3://pictures/shards/*.tar", "class_names": ["a", "b", "c"]}
    shards = audited({**data, "storage": bucket})
    assert sorted(row["group"] for row in rows(shards, "images")) == sorted(
        row["group"] for row in rows(from_folder, "images")
    )


def test_a_bucket_that_is_not_there_is_one_plain_line(bucket: dict, audited) -> None:
    for data in (
        {"source": "folder", "path": "s3://nothing-here/set"},
        {"source": "manifest", "path": "s3://nothing-here/list.csv"},
    ):
        with pytest.raises(UserError) as caught:
            audited({**data, "storage": bucket})
        assert "nothing-here" in str(caught.value) and "\n" not in str(caught.value)
