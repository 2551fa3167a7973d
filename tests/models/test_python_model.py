"""The user's own factories: found in the working folder, called as documented, and checked."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.models import registry
from pipeline.models.python_model import python_classifier, python_encoder

MODULE = """
import numpy as np

class Model:
    fingerprint = "brightness-1"
    def __init__(self, classes, device, scale):
        self.classes, self.device, self.scale = classes, device, scale
    def logits(self, images):
        return np.array([[image.mean() * self.scale] * len(self.classes) for image in images], np.float32)

class Encoder:
    has_text = False
    fingerprint = "colour-1"
    def images(self, images): return np.zeros((len(images), 3), np.float32)
    def regions(self, images, boxes): return [np.zeros((len(b), 3), np.float32) for b in boxes]

class Wordless(Encoder):
    has_text = True

class Nameless:
    def logits(self, images): return None

class Numbered(Model):
    fingerprint = 7

def brightness(classes, device, scale=1.0): return Model(classes, device, scale)
def colour(device): return Encoder()
def wordless(device): return Wordless()
def nameless(classes, device): return Nameless()
def numbered(classes, device): return Numbered(classes, device, 1)
def nothing(classes, device): return None
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """A module of the user's in the working folder."""
    (tmp_path / "my_own_models.py").write_text(MODULE)
    (tmp_path / "my_broken_module.py").write_text("1 / 0")
    (tmp_path / "my_needy_module.py").write_text("import a_package_that_is_not_installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("my_own_models", "my_broken_module", "my_needy_module"):
        sys.modules.pop(name, None)


def test_a_classifier_gets_classes_device_and_options():
    model = python_classifier(("a", "b"), "cpu", factory="my_own_models:brightness", options={"scale": 2.0})
    assert (model.classes, model.device) == (("a", "b"), "cpu")
    assert model.logits([np.full((2, 2, 3), 10, np.uint8)]).tolist() == [[20.0, 20.0]]


def test_an_encoder_without_words_needs_no_texts():
    encoder = python_encoder("cpu", factory="my_own_models:colour")
    assert not encoder.has_text and encoder.fingerprint == "colour-1"


def test_the_registry_knows_their_options():
    chosen = {"factory": "my_own_models:brightness"}
    assert registry.check_options("model", "python", chosen) == {**chosen, "options": {}}
    with pytest.raises(UserError, match="factory"):
        registry.check_options("embed", "python", {})


@pytest.mark.parametrize(
    ("factory", "options", "words"),
    [
        ("brightness", {}, ["module:function"]),
        ("my_own_models:", {}, ["module:function"]),
        ("my_own_modles:brightness", {}, ["no module 'my_own_modles'", "working folder"]),
        ("my_own_models.inner:brightness", {}, ["no module 'my_own_models.inner'"]),
        ("my_own_models:brightnes", {}, ["Did you mean 'brightness'"]),
        ("my_own_models:brightness", {"skale": 1}, ["skale"]),
        ("my_own_models:colour", {}, ["can't be called"]),
        ("my_broken_module:model", {}, ["fails at import", "ZeroDivisionError"]),
        ("my_needy_module:model", {}, ["needs the package 'a_package_that_is_not_installed'"]),
        ("my_own_models:nameless", {}, ["lacks fingerprint"]),
        ("my_own_models:nothing", {}, ["NoneType", "logits()", "fingerprint"]),
        ("my_own_models:numbered", {}, ["fingerprint", "string"]),
    ],
)
def test_faults_are_said_plainly(factory, options, words):
    with pytest.raises(UserError) as caught:
        python_classifier(("a",), "cpu", factory=factory, options=options)
    for word in words:
        assert word in str(caught.value)


def test_an_encoder_that_promises_words_must_have_texts():
    with pytest.raises(UserError, match=r"lacks texts\(\)"):
        python_encoder("cpu", factory="my_own_models:wordless")


def test_the_working_folder_hides_no_installed_package(tmp_path):
    (tmp_path / "colorsys.py").write_text("def make(classes, device): return None")
    with pytest.raises(UserError, match="no function 'make'"):
        python_classifier(("a",), "cpu", factory="colorsys:make")
