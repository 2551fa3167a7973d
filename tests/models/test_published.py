"""Published models: each is named as a configuration must, nothing is asked of the network, caches are looked into."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from pipeline.models import published, registry
from pipeline.models.published import PUBLISHED, Published

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def of_kind(kind: str) -> list[Published]:
    return [model for model in PUBLISHED if model.kind == kind]


def test_each_is_named_as_a_configuration_must() -> None:
    for model in PUBLISHED:
        for seam in model.seams:
            assert model.kind in registry.BUILT_IN[seam]
            registry.check_options(seam, model.kind, model.options)
        assert model.licence and model.download > 0 and bool(model.repository) != bool(model.file)
        assert model.download / model.millions < 4.2  # megabytes a million parameters: none is wider than 32 bits
    names = [(model.kind, str(model.options)) for model in PUBLISHED]
    assert len(set(names)) == len(names)


def test_every_model_that_an_example_names_is_listed() -> None:
    listed = {(seam, model.kind, model.options["name"]) for model in PUBLISHED for seam in model.seams}
    for seam, kinds in registry.BUILT_IN.items():
        for kind, line in kinds.items():
            if any(model.kind == kind for model in PUBLISHED) and seam in ("model", "caption", "detect", "embed"):
                name = line.example.partition("name: ")[2].partition(",")[0]
                assert (seam, kind, name) in listed


def test_places_are_those_that_the_packages_know() -> None:
    import open_clip
    import timm.models
    import torchvision.models

    for model in of_kind("open_clip"):
        known = open_clip.get_pretrained_cfg(model.options["name"], model.options["pretrained"])
        assert known["hf_hub"].strip("/") == model.repository
    for model in of_kind("timm"):
        known = timm.models.get_pretrained_cfg(model.options["name"])
        assert known is not None and known.hf_hub_id == model.repository
        assert known.license == model.licence.lower()
    for model in of_kind("torchvision"):
        weights = torchvision.models.get_model_weights(model.options["name"]).DEFAULT
        assert Path(weights.url).name == model.file
        assert round(weights.meta["num_params"] / 1e6) == model.millions
        assert round(weights.meta["_file_size"]) == model.download


def test_what_is_in_a_cache_is_known_to_be_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert not any(model.here() for model in PUBLISHED)
    (clip, *_), (detector, *_), (resnet, *_) = of_kind("open_clip"), of_kind("yolo_world"), of_kind("torchvision")
    snapshot = tmp_path / "hf" / "hub" / f"models--{clip.repository.replace('/', '--')}" / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert not clip.here()  # a configuration alone is no model
    (snapshot / "open_clip_model.safetensors").write_bytes(b"x")
    (tmp_path / detector.file).write_bytes(b"x")
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "torch" / "hub" / "checkpoints" / resnet.file).write_bytes(b"x")
    assert [model for model in PUBLISHED if model.here()] == [clip, resnet, detector]


def test_the_hubs_cache_is_where_its_client_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert published._hub_cache() == Path(constants.default_home, "huggingface", "hub").expanduser()


def test_the_command_lists_them(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.cli import main

    monkeypatch.setenv("COLUMNS", "260")
    monkeypatch.setattr(sys, "argv", ["cuescope", "doctor", "--models"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    shown = capsys.readouterr().out
    for model in PUBLISHED:
        assert model.options["name"] in shown and model.licence.partition(";")[0] in shown
    line = next(line for line in shown.splitlines() if "ViT-B-32, pretrained: laion2b_s34b_b79k" in line)
    for words in ("model, embed", "605 MB", "151 M", "0.6 / 0.3 GB", "MIT"):
        assert words in line
