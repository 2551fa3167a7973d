"""The whole chain with a multimodal LLM under test: an endpoint that looks at the pixels it is sent, and a file of
answers; the dry run before it, and what is written down of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import Audit, discover
from pipeline.cli import discover as discover_command
from pipeline.dry_run import plan_audit, together
from pipeline.errors import UserError
from tests import fakes
from tests.conftest import noisy_picture, write_patched_set
from tests.llm_server import Server, completion
from tests.models.test_vision_models import question, shown

KEY = "sk-planted-0123456789"
PROMPTS = {
    "is there": "Is there {} in the image?",
    "contrary": {"ask": "Is it wrong that there is {} in the image?", "counts": False},
}


def leans_on_red(request: dict) -> Any:
    """Sees `a` where there is a red patch, `b` where the left edge is grey, and never `c`."""
    if "response_format" in request:
        return json.dumps({"attributes": [], "answers": []})
    image, asked = shown(request), question(request)
    if image is None:
        chance = 0.1
    else:
        pixels = image.astype(np.int64)
        red = ((pixels[..., 0] > 180) & (pixels[..., 1] < 90) & (pixels[..., 2] < 90)).mean()
        grey = (np.abs(pixels[:, :6] - 128).max(axis=2) < 14).mean()
        chance = {"a": min(0.05 + red / 0.05, 0.95), "b": 0.9 if grey > 0.5 else 0.1}.get(asked.split()[-4], 0.05)
    chance = 1 - chance if "wrong" in asked else chance
    top = [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in (("Yes", chance), ("No", 1 - chance))]
    return 200, completion("Yes", logprobs={"content": [{**top[0], "top_logprobs": top}]})


@pytest.fixture(scope="module")
def server() -> Any:
    with Server() as running:
        running.always = leans_on_red
        yield running


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patched_set(tmp_path_factory.mktemp("data") / "images", per_class=40)


def audit_of(images: Path, base: Path, model: dict, **more: Any) -> Audit:
    return Audit.from_dict(
        {
            "data": {"source": "folder", "path": str(images)},
            "model": model,
            "embed": {"kind": "python", "factory": "tests.fakes:colors"},
            "ablate": {"fills": ["mean"], "images": 12, "budget": 150},
            "cache": str(base / "cache"),
            "no_split": True,
            **more,
        }
    )


def endpoint(server: Server, **more: Any) -> dict:
    return {
        "kind": "openai_vision", "model": "m", "base_url": server.url, "prompts": PROMPTS, "side": 48, "workers": 4,
        "price": {"input": 1, "output": 1}, "api_key_env": "PLANTED_KEY", **more,
    }  # fmt: skip


def test_a_dry_run_counts_and_asks_nothing(
    server: Server, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    llm = {"kind": "openai", "model": "m", "base_url": server.url, "price": {"input": 1, "output": 2}}
    audit = audit_of(images, tmp_path, endpoint(server), propose={"kind": "union", "members": [llm]})
    before = len(server.requests)
    planned = {line.stage: line for line in plan_audit(audit, tmp_path / "out")}
    assert planned["predict"].forwards == 120 and planned["predict"].cost.calls == 120 * 3 * 2  # type: ignore[union-attr]
    assert planned["propose"].cost.calls == 3 * 2 and planned["ablate"].forwards == 150  # type: ignore[union-attr]
    # about the class alone that an edit is for, by the prompt that counts; and four blank pictures and none
    assert planned["ablate"].cost.calls == 150 and planned["measure"].cost.calls == 5 * 3 * 2  # type: ignore[union-attr]
    assert planned["embed"].forwards == 120 and planned["embed"].cost is None
    total = together(list(planned.values()))
    assert total.usd is not None and total.usd > 0.5
    config = tmp_path / "audit.yaml"
    config.write_text(json.dumps(audit.to_dict()))
    discover_command(config, out=tmp_path / "out", dry_run=True)
    assert "together" in capsys.readouterr().out
    assert len(server.requests) == before and not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_the_patch_that_an_endpoint_leans_on_is_found(
    server: Server, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED_KEY", KEY)
    result = discover(audit_of(images, tmp_path, endpoint(server)), tmp_path / "out")
    top = min((row for row in result.findings if row["class"] == "a"), key=lambda row: row["rank"])
    assert top["kind"] == "unnamed" and top["insertion_effect"] > 0.5
    assert top["pa_gap"] > 0.5 and top["hr_gap"] > 0.5 and top["hr_gap_top_k"] > 0

    rows = {(row["label"], row["variant"]): row for row in result.table("variants").to_pylist()}
    one, all_that_count = rows["a", "is there"], rows["a", "all that count"]
    assert one["pa"] == all_that_count["pa"] == pytest.approx(0.6, abs=0.2) and one["hr"] < 0.2
    assert (one["n_present"], one["n_absent"]) == (40, 80) and one["neither"] == 0
    contrary = rows["a", "contrary"]
    assert not contrary["counts"] and contrary["pa"] == pytest.approx(1 - one["pa"])
    assert contrary["pa_gap_top_k"] == pytest.approx(-one["pa_gap_top_k"]) and one["pa_gap_top_k"] > 0.3
    assert one["no_image_yes"] == pytest.approx(0.1, abs=1e-3) and one["blank_yes"] < 0.2
    assert rows["b", "is there"]["pa"] == 1 and rows["c", "is there"]["pa"] == 0

    spent = result.run["costs"]
    log = [json.loads(line) for line in (result.path / "llm.jsonl").read_text().splitlines()]
    assert spent["calls"] == sum(not entry["cached"] for entry in log) >= 120 * 3 * 2 and spent["usd"] > 0
    assert spent["calls"] <= 120 * 3 * 2 + 5 * 3 * 2 + result.run["forwards"]["ablate"], "one question an edit"
    assert spent["refused"] == spent["unread"] == spent["failed"] == 0
    words = (result.path / "report.html").read_text(encoding="utf-8")
    assert "Answers by prompt" in words and "every answer said Yes or No" in words
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert everything and not any(KEY.encode() in path.read_bytes() for path in everything)


@pytest.mark.slow
def test_a_budget_that_is_reached_stops_plainly_and_goes_on_with_more(
    server: Server, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^model: the budget of 50 calls.*run the same command again"):
        discover(audit_of(images, tmp_path, endpoint(server, budget={"calls": 50})), tmp_path / "out")
    in_predict = endpoint(server, budget={"calls": 120 * 3 * 2 + 60})
    result = discover(audit_of(images, tmp_path, in_predict), tmp_path / "out")
    assert result.run["finished"] and len(result.findings)
    assert any("calls" in row["reason"] for row in result.table("untested").to_pylist())


def test_a_file_of_answers_has_gaps_and_no_effects(images: Path, tmp_path: Path) -> None:
    from pipeline.images import load

    rows = []
    for path in sorted(images.rglob("*.png")):
        pixels = load(path).astype(int)
        red = ((pixels[..., 0] > 200) & (pixels[..., 1] < 70)).any()
        for name, yes in (("a", red), ("b", path.parent.name == "b")):
            answer = f'"{"Yes, there is." if yes else "No, there is not."}"'
            rows.append(f"{path.relative_to(images).as_posix()},{name},{answer}")
    (tmp_path / "answers.csv").write_text("image,class,answer\n" + "\n".join(rows[:-1]) + "\n")
    audit = audit_of(images, tmp_path, {"kind": "answers_file", "path": str(tmp_path / "answers.csv")})
    result = discover(audit, tmp_path / "out")
    top = max((row for row in result.findings if row["class"] == "a"), key=lambda row: row["hr_gap"])
    assert top["pa_gap"] > 0.5 and top["hr_gap"] > 0.5 and top["removal_n"] == top["insertion_n"] == 0
    assert any("file of its answers" in row["reason"] for row in result.table("untested").to_pylist())
    rows = {(row["label"], row["variant"]): row for row in result.table("variants").to_pylist()}
    assert rows["c", "all that count"]["n_present"] == 0 and np.isnan(rows["c", "all that count"]["pa"])
    assert rows["b", "all that count"]["pa"] == 1 and np.isnan(rows["a", "all that count"]["blank_yes"])
    assert len(result.table("answers")) == 239


def with_objects(root: Path) -> Path:
    """A manifest of 24 pictures of `a`, with a green object and mostly a red lamp, and 24 of `b`, with few lamps."""
    rng = np.random.default_rng(3)
    root.mkdir()
    rows = []
    for label, every in (("a", 2), ("b", 8)):
        for number in range(24):
            picture = noisy_picture(rng).clip(0, 180)
            boxes, names = [], []
            if label == "a":
                picture[28:40, 28:40] = (10, 250, 10)
                boxes, names = [[28, 28, 40, 40]], ["a"]
            if number % every == 0:
                picture[4:14, 4:14] = (250, 10, 10)
                boxes, names = [*boxes, [4, 4, 14, 14]], [*names, "lamp"]
            Image.fromarray(picture.astype(np.uint8)).save(root / f"{label}{number}.png")
            rows.append({"image": f"{label}{number}.png", "label": label, "boxes": boxes, "box_labels": names})
    (root / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "set.jsonl"


def test_own_pictures_without_their_object_are_asked_about_once(tmp_path: Path) -> None:
    path = with_objects(tmp_path / "set")
    audit = Audit.from_dict(
        {
            "data": {"source": "manifest", "path": str(path)},
            "model": {"kind": "python", "factory": "tests.fakes:green_or_red"},
            "propose": {"kind": "list", "attributes": ["lamp"]},
            "detect": {"kind": "data"},
            "measure": {"top_k": 4, "absent": 20},
            "ablate": {"fills": ["mean"], "images": 8, "budget": 60},
            "cache": str(tmp_path / "cache"),
            "no_split": True,
        }
    )
    fakes.LOG.clear()
    result = discover(audit, tmp_path / "out")
    mine = [row for row in result.table("variants").to_pylist() if row["label"] == "a"]
    for source in ("object masked", "object removed"):
        rows = [row for row in mine if row["source"] == source]
        assert {row["n_absent"] for row in rows} == {20}
        assert {row["variant"] for row in rows} == {"is there", "never", "all that count"}, (
            "what doesn't count isn't asked"
        )
        (lamp,) = [row for row in rows if (row["variant"], row["cue_id"]) == ("all that count", "thing:lamp")]
        assert lamp["hr_gap_top_k"] == 0.5, "one of two prompts is misled, averaged late"
    (others,) = [row for row in mine if (row["source"], row["variant"]) == ("other classes", "is there")]
    assert others["pa"] == 1 and others["n_absent"] == 24
    assert any("pictures of b with the object masked" in entry["what"] for entry in result.run["skipped"])
    forwards = result.run["forwards"]
    assert forwards["measure"] == 5 + 2 * 20 and forwards["ablate"] > 0
    # every class and prompt of the data and of nothing; else the class alone, by the two prompts that count
    assert len(fakes.LOG) == (48 + 5) * 2 * 3 + (40 + forwards["ablate"]) * 2

    asked = len(fakes.LOG)
    again = discover(audit, tmp_path / "again")
    assert len(fakes.LOG) == asked and not any(again.run["forwards"].get(name) for name in ("measure", "ablate"))
    for name in ("variants", "edits", "findings"):
        assert (again.path / f"{name}.parquet").read_bytes() == (result.path / f"{name}.parquet").read_bytes()


def test_a_caption_budget_that_is_spent_leaves_the_rest_for_a_later_run(images: Path, tmp_path: Path) -> None:
    def audit(calls: int) -> Audit:
        return audit_of(
            images, tmp_path, {"kind": "python", "factory": "tests.fakes:patch_lover"}, embed=None,
            ablate={"enabled": False},
            caption={"kind": "openai", "model": "m", "base_url": captions.url, "budget": {"calls": calls}},
        )  # fmt: skip

    with Server() as captions:
        captions.always = lambda request: json.dumps({"caption": "a thing"})
        short = discover(audit(7), tmp_path / "out")
        assert short.run["finished"] and len(short.table("captions")) == 7 == short.run["forwards"]["caption"]
        (entry,) = [entry for entry in short.run["skipped"] if entry["what"].startswith("captions of")]
        assert entry["what"].startswith("captions of 113 images") and "budget of 7 calls" in entry["why"]
        whole = discover(audit(1000), tmp_path / "out")
        assert len(whole.table("captions")) == 120 == len(captions.requests)
        assert not any(entry["what"].startswith("captions of") for entry in whole.run["skipped"])
