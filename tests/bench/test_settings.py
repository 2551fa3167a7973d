"""The benchmark's settings: what is planted is what was asked for, and nothing else differs."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bench.planted.settings import (
    KINDS,
    N_CLASSES,
    Cue,
    Setting,
    World,
    audited,
    counterfactuals,
    draw,
    settings,
    shares,
    shows,
    some_of,
    training,
    vocabulary,
)
from pipeline.metrics.association import cramers_v
from pipeline.planted import render

ALL = [draw("development", "planted", kind, number, 0.9, "resnet") for kind in KINDS for number in (0, 1)]


@given(st.floats(0.0, 1.0))
def test_shares_give_the_strength_asked_for(strength: float) -> None:
    own, others = shares(strength)
    assert 0 <= others <= own <= 1
    n = 1 / N_CLASSES
    table = np.array([[own * n, (1 - own) * n], [others * (1 - n), (1 - others) * (1 - n)]])
    assert cramers_v(table * 1000) == pytest.approx(strength, abs=1e-6)


@pytest.mark.parametrize("setting", ALL, ids=lambda s: s.describe())
def test_the_fine_tuning_set_has_about_the_strength_and_the_audited_set_none(setting: Setting) -> None:
    (label, cue) = setting.planted[0]

    def v(examples: list) -> float:
        table = np.zeros((2, 2))
        for e in examples:
            table[int(e.label == label), int(cue in e.cues)] += 1
        return float(cramers_v(table))

    assert v(training(setting)) == pytest.approx(0.9, abs=0.08)
    assert v(audited(setting)) < 0.15


@pytest.mark.parametrize("setting", ALL, ids=lambda s: s.describe())
def test_a_scene_shows_a_cue_exactly_where_its_example_says_so(setting: Setting) -> None:
    _, cue = setting.planted[0]
    examples = audited(setting)
    assert all(shows(e.scene, cue) == (cue in e.cues) for e in examples)
    assert {True, False} == {cue in e.cues for e in examples}


@pytest.mark.parametrize("setting", ALL, ids=lambda s: s.describe())
def test_a_counterfactual_lacks_the_cue_and_differs_in_nothing_else(setting: Setting) -> None:
    label, cue = setting.planted[0]
    for shown, bare in zip(*counterfactuals(setting, label, cue, 6), strict=True):
        assert shows(shown, cue)
        assert not shows(bare, cue)
        changed = {f.name for f in dataclasses.fields(shown) if getattr(shown, f.name) != getattr(bare, f.name)}
        field = {"object": "objects", "overlay": "overlays", "texture": "noise blur", "scale": "zoom"}
        assert len(changed) == 1
        assert changed <= set(field.get(cue.kind, cue.kind).split())
        assert (render(shown).image != render(bare).image).any()


def test_no_word_of_a_held_out_setting_was_tuned_on() -> None:
    one, other = vocabulary("development"), vocabulary("held-out")
    assert not set(one.objects) & {*other.objects, *other.strangers}
    assert not set(one.backgrounds) & set(other.backgrounds)
    assert not {s.seed for s in settings("development")} & {s.seed for s in settings("held-out")}


@pytest.mark.parametrize("world", ["development", "held-out"])
def test_there_are_enough_settings_of_every_sort(world: World) -> None:
    every = settings(world)
    assert len({s.key for s in every}) == len(every)
    designs = [s.design for s in every]
    leaning = [s for s in every if s.design not in ("null", "association")]
    assert len(leaning) >= 70  # 60 valid ones are wanted, and the weakest are seldom valid
    assert designs.count("null") == 40
    assert {s.planted[0][1].kind for s in every if s.planted} == set(KINDS)
    assert {s.family for s in every} == {"resnet", "vit", "classifier"}


def test_a_setting_is_the_same_in_every_process() -> None:
    code = (
        "from pipeline.bench.planted.settings import *; import hashlib;"
        "s = draw('held-out', 'two cues', 'object', 0, 0.9, 'resnet');"
        "print(s.key, hashlib.blake2b(repr([e.scene for e in training(s)]).encode()).hexdigest())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_some_of_the_settings_are_whole_audited_sets() -> None:
    every = settings("development")
    some = some_of(every, 5)
    kept = {s.audited.key for s in some}
    assert len(kept) == -(-len({s.audited.key for s in every}) // 5)
    assert some == [s for s in every if s.audited.key in kept]
    assert some_of(every, 1) == every


def test_a_colours_counterfactual_repaints_the_classs_own_object_alone() -> None:
    setting = draw("development", "null", "", 0, 0.0, "resnet")
    label = setting.classes[0]
    shown, bare = counterfactuals(setting, label, Cue("color", "green"), 20)
    for a, b in zip(shown, bare, strict=True):
        assert a.objects[0].name == label
        assert a.objects[0].color == "green" != b.objects[0].color
        assert dataclasses.replace(b, objects=(a.objects[0], *b.objects[1:])) == a
