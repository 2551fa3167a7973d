"""No pickle is opened without consent, whatever it is called and whoever's loader it meets."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import UserError
from pipeline.models import hub, ultralytics_loading
from pipeline.models.open_clip_model import open_clip_classifier
from pipeline.models.timm_model import timm_classifier
from pipeline.models.torchvision_model import torchvision_classifier
from pipeline.models.transformers_classifier import transformers_classifier
from pipeline.models.transformers_zero_shot import transformers_zero_shot
from tests.conftest import ROOT

CLASSES = ("dog", "cat")
IMAGES = [np.zeros((32, 32, 3), np.uint8)]


class Hostile:
    """Leaves a trace where it is unpickled, by a function that no list of bad ones holds."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self) -> Any:
        return eval, (f"open({self.trace!r}, 'w').close()",)


def plain_pickle(file: Path, trace: Path) -> None:
    file.write_bytes(pickle.dumps({"model": Hostile(trace)}))


def torch_archive(file: Path, trace: Path) -> None:
    torch.save({"state_dict": Hostile(trace), "model": Hostile(trace)}, file)


def old_torch(file: Path, trace: Path) -> None:
    torch.save({"model": Hostile(trace)}, file, _use_new_zipfile_serialization=False)


def open_clip_folder(folder: Path, make: Callable[[Path, Path], None], trace: Path, name: str) -> Callable[[], Any]:
    shutil.copytree(ROOT / "data" / "models" / "clip", folder)
    (folder / "open_clip_model.safetensors").unlink()
    make(folder / name, trace)
    return lambda: open_clip_classifier(CLASSES, "cpu", name=f"local-dir:{folder}").logits(IMAGES)


def open_clip_file(folder: Path, make: Callable[[Path, Path], None], trace: Path, name: str) -> Callable[[], Any]:
    folder.mkdir()
    make(folder / name, trace)
    return lambda: open_clip_classifier(CLASSES, "cpu", name="RN50", pretrained=str(folder / name)).logits(IMAGES)


def timm_folder(folder: Path, make: Callable[[Path, Path], None], trace: Path, name: str) -> Callable[[], Any]:
    folder.mkdir()
    config = {"architecture": "test_resnet", "num_classes": 2, "pretrained_cfg": {"input_size": [3, 32, 32]}}
    (folder / "config.json").write_text(json.dumps(config))
    make(folder / name.replace("open_clip_", ""), trace)
    return lambda: timm_classifier(CLASSES, "cpu", name=str(folder), labels=list(CLASSES)).logits(IMAGES)


def timm_file(folder: Path, make: Callable[[Path, Path], None], trace: Path, name: str) -> Callable[[], Any]:
    folder.mkdir()
    make(folder / name, trace)
    options = {"name": "test_resnet", "checkpoint": str(folder / name), "labels": list(CLASSES)}
    return lambda: timm_classifier(CLASSES, "cpu", **options).logits(IMAGES)


def torchvision_file(folder: Path, make: Callable[[Path, Path], None], trace: Path, name: str) -> Callable[[], Any]:
    folder.mkdir()
    make(folder / name, trace)
    options = {"name": "resnet18", "checkpoint": str(folder / name), "labels": list(CLASSES)}
    return lambda: torchvision_classifier(CLASSES, "cpu", **options).logits(IMAGES)


def transformers_folder(folder: Path, make: Callable[[Path, Path], None], trace: Path, name: str) -> Callable[[], Any]:
    folder.mkdir()
    config = {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification"],
        "hidden_size": 8,
        "num_hidden_layers": 1,
    }
    config |= {"num_attention_heads": 1, "intermediate_size": 8, "image_size": 32, "id2label": {"0": "dog", "1": "cat"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "ViTImageProcessor"}))
    make(folder / name.replace("open_clip_", ""), trace)
    return lambda: transformers_classifier(CLASSES, "cpu", name=str(folder)).logits(IMAGES)


def ultralytics_file(folder: Path, make: Callable[[Path, Path], None], trace: Path, name: str) -> Callable[[], Any]:
    folder.mkdir()
    file = folder / "model.pt"
    make(file, trace)
    return lambda: ultralytics_loading.open_network(file, False, 64)


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "open_clip_model.safetensors"])
@pytest.mark.parametrize("make", [plain_pickle, torch_archive, old_torch])
@pytest.mark.parametrize(
    "place",
    [open_clip_folder, open_clip_file, timm_folder, timm_file, torchvision_file, transformers_folder, ultralytics_file],
)
def test_a_hostile_pickle_is_not_opened(tmp_path: Path, place: Any, make: Any, name: str) -> None:
    trace = tmp_path / "trace"
    by_name = name.endswith(".bin") and place is not ultralytics_file
    with pytest.raises(UserError, match="is a pickle" if by_name else "can't be (loaded|opened)"):
        place(tmp_path / "model", make, trace, name)()
    assert not trace.exists()


def test_the_pickle_would_leave_its_trace(tmp_path: Path) -> None:
    for number, make in enumerate((plain_pickle, torch_archive, old_torch)):
        trace, file = tmp_path / f"trace-{number}", tmp_path / f"{number}.pt"
        make(file, trace)
        assert not trace.exists()
        pickle.loads(file.read_bytes()) if make is plain_pickle else torch.load(file, weights_only=False)
        assert trace.exists()


def test_an_ultralytics_that_opens_everything_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.nn import tasks

    trace = tmp_path / "trace"
    torch_archive(tmp_path / "x.pt", trace)
    monkeypatch.setattr(tasks._SafeLoad, "SUPPORTED", False)
    with pytest.raises(UserError, match="can't open it safely"):
        ultralytics_loading.open_network(tmp_path / "x.pt", False, 64)
    assert not trace.exists()


@pytest.fixture
def with_code(tmp_path: Path) -> Path:
    """A tokenizer and a model whose configurations name Python files beside them."""
    folder = tmp_path / "coded"
    shutil.copytree(ROOT / "data" / "models" / "clip", folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w').close()\nclass Evil: pass\n")
    reference = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoConfig": "evil.Evil"}}
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer.pop("tokenizer_class", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer | reference))
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", **reference}))
    (folder / "model.safetensors").write_bytes((folder / "open_clip_model.safetensors").read_bytes())
    return folder


def test_python_files_beside_weights_are_not_run(with_code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoConfig, AutoTokenizer

    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("nobody is asked"))
    trace = with_code.parent / "trace"
    for kind in (AutoTokenizer, AutoConfig):
        with pytest.raises(UserError):
            hub.load_transformers("model", kind, str(with_code))
    with pytest.raises(UserError):
        transformers_zero_shot(CLASSES, "cpu", name=str(with_code)).logits(IMAGES)
    assert not trace.exists()


def test_an_open_clip_configuration_lets_no_code_in(with_code: Path) -> None:
    file = with_code / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match="trust_remote_code"):
        open_clip_classifier(CLASSES, "cpu", name=f"local-dir:{with_code}").logits(IMAGES)
    assert not (with_code.parent / "trace").exists()


def test_without_those_the_same_folder_loads(tmp_path: Path) -> None:
    """The refusals above are of the pickles and the code, not of the folders."""
    folder = tmp_path / "good"
    shutil.copytree(ROOT / "data" / "models" / "clip", folder)
    assert load_file(folder / "open_clip_model.safetensors")
    assert open_clip_classifier(CLASSES, "cpu", name=f"local-dir:{folder}").logits(IMAGES).shape == (1, 2)
