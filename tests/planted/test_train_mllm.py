"""The tiny multimodal LLM: rows teach the replies and nothing else, training resumes, the export is an
ordinary transformers folder, and the shipped weights reach their targets on worlds they never saw."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pipeline.errors import UserError  # noqa: E402
from pipeline.planted import HELD_OUT_OBJECTS, TRAIN_OBJECTS, render, sample_scene  # noqa: E402
from pipeline.planted.train import clip_model, mllm, mllm_evaluation, mllm_model  # noqa: E402
from pipeline.planted.train import conversations as talk  # noqa: E402

SHIPPED = Path(__file__).parents[2] / "data" / "models" / "mllm"
SMALL = mllm.Recipe(batch_size=4, n_questions=2, hidden_size=32, n_layers=1, threads=1)


@pytest.fixture(scope="module")
def tokenizer():
    return talk.train_tokenizer(seed=0, n_scenes=200)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of a few steps, exported; (its folder, its checkpoint's folder, what training said)."""
    out, work = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("work")
    done = mllm.train_mllm(out, minutes=5, recipe=SMALL, work=work, max_steps=2)
    return out, work, done


def row_and_turns(tokenizer, seed=3):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    turns = talk.sample_turns(scene, render(scene), rng, 4)
    return talk.encode_row(turns, talk.cached_encode(tokenizer)), turns


def test_only_replies_are_taught(tokenizer):
    row, turns = row_and_turns(tokenizer)
    for k, turn in enumerate(turns, start=1):
        taught = row.labels[(row.branch == k) & (row.labels != talk.IGNORE)]
        assert tokenizer.decode(taught) == turn.reply + talk.END
    assert (row.labels[row.branch == 0] == talk.IGNORE).all()
    # A label is the token that comes next, so the model is asked for it where it doesn't see it yet.
    where = np.flatnonzero(row.labels != talk.IGNORE)
    assert (row.labels[where] == row.ids[where + 1]).all()


def test_a_turn_sees_the_image_and_itself_only(tokenizer):
    row, _ = row_and_turns(tokenizer)
    mask = talk.collate([row], tokenizer.pad_token_id)["attention_mask"][0, 0]
    n = len(row.ids)
    for query in range(n):
        sees = np.flatnonzero(mask[query, :n])
        assert set(row.branch[sees]) <= {0, row.branch[query]}
        assert sees.max() == query
    first = np.flatnonzero(row.branch == 2)[0]
    assert row.positions[first] == talk.N_IMAGE_TOKENS + 1


def test_the_row_equals_the_chat_template(tokenizer):
    row, turns = row_and_turns(tokenizer)
    processor = mllm_model.build_processor(tokenizer)
    turn = turns[0]
    text = processor.apply_chat_template(
        [
            {"role": "user", "content": [{"type": "text", "text": turn.prompt}, {"type": "image"}]},
            {"role": "assistant", "content": turn.reply},
        ]
    )
    blank = np.zeros((60, 90, 3), dtype=np.uint8)
    ids = processor(images=[blank], text=[text], return_tensors="np")["input_ids"][0]
    assert ids.tolist() == row.ids[row.branch <= 1].tolist()


def test_a_row_gives_the_logits_of_single_turns(tokenizer):
    torch.manual_seed(0)
    model = mllm_model.build_model(tokenizer, 32, 1).eval()
    row, _ = row_and_turns(tokenizer)
    batch = {k: torch.from_numpy(v) for k, v in talk.collate([row], tokenizer.pad_token_id).items()}
    images = mllm_model.pixels(torch.zeros(1, 96, 96, 3, dtype=torch.uint8))
    with torch.inference_mode():
        packed = model(
            input_ids=batch["input_ids"],
            pixel_values=images,
            position_ids=batch["position_ids"],
            attention_mask=batch["attention_mask"],
        ).logits[0, : len(row.ids)]
        single = model(
            input_ids=torch.from_numpy(row.ids[(row.branch == 0) | (row.branch == 3)])[None],
            pixel_values=images,
        )
    torch.testing.assert_close(
        packed[row.branch == 3], single.logits[0, talk.N_IMAGE_TOKENS + 1 :], atol=1e-4, rtol=1e-3
    )


def test_answers_are_balanced_and_true(tokenizer):
    rng = np.random.default_rng(0)
    said = []
    for _ in range(200):
        scene = sample_scene(rng)
        placed = {p.name for p in scene.objects}
        for turn in talk.sample_turns(scene, render(scene), rng, 3):
            if turn.kind == "answer":
                said.append(turn.reply)
                nouns = mllm_evaluation.nouns_in(turn.prompt)
                assert not nouns or (turn.reply == "Yes") == (nouns <= placed)
    assert 0.4 < np.mean(np.array(said) == "Yes") < 0.55


def test_no_held_out_name_is_ever_spoken():
    rng = np.random.default_rng(1)
    spoken = ""
    for _ in range(200):
        scene = sample_scene(rng)
        spoken += " ".join(t.prompt + " " + t.reply for t in talk.sample_turns(scene, render(scene), rng, 3)) + " "
    assert not [name for name in HELD_OUT_OBJECTS if f" {name} " in spoken]


def test_yes_and_no_are_single_tokens_and_any_text_survives(tokenizer):
    assert len(tokenizer("Yes").input_ids) == len(tokenizer("No").input_ids) == 1
    for text in ("Is there a wölf 狼 in the image?", *HELD_OUT_OBJECTS):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert all(len(tokenizer(f" {name}").input_ids) <= 2 for name in TRAIN_OBJECTS)


def test_dense_targets_mark_where_an_object_is():
    rng = np.random.default_rng(5)
    scene = sample_scene(rng, objects=[TRAIN_OBJECTS[0]], overlay=False, sizes=(0.4, 0.5))
    picture = render(scene)
    cells, concepts = talk.dense_targets(scene, picture)
    rows, columns = np.nonzero(cells[0] == 1)
    assert len(rows) and (cells[1 : len(TRAIN_OBJECTS)] == 0).all()
    x0, y0, x1, y1 = picture.boxes[0] * 6
    assert (columns + 1 > x0).all() and (columns < x1).all() and (rows + 1 > y0).all() and (rows < y1).all()
    assert concepts[talk.SCENE_TARGETS.index(TRAIN_OBJECTS[0])] == 1


def write_clip(folder, width=mllm_model.TOWER_WIDTH):
    """An untrained CLIP of our own size, with statistics that are not the initial ones; the CLIP itself."""
    config = clip_model.model_config(300, width=width, layers=mllm_model.TOWER_LAYERS, text_width=32, text_layers=1)
    clip = clip_model.build_model(config)
    for name, value in clip.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.05, 0.15)
        elif "bn3.weight" in name:  # zero at first, which would hide the blocks behind their shortcuts
            value.uniform_(0.5, 1.5)
    clip_model.export(clip.state_dict(), config, folder)
    return clip.eval()


def test_a_borrowed_tower_sees_what_the_clip_sees(tokenizer, tmp_path):
    torch.manual_seed(1)
    clip = write_clip(tmp_path)
    model = mllm_model.build_model(tokenizer, 32, 1).eval()
    mllm_model.borrow_tower(model, tmp_path)
    images = torch.randint(0, 256, (2, 96, 96, 3), dtype=torch.uint8)
    visual, tower = clip.visual, model.model.vision_tower.timm_model
    with torch.inference_mode():
        wanted = visual.layer3(visual.layer2(visual.layer1(visual.stem(clip_model.normalise(images)))))
        seen = tower.forward_intermediates(mllm_model.pixels(images), indices=[3], intermediates_only=True)[0]
    assert wanted.abs().max() > 0.1
    assert (seen - wanted).abs().max() < 0.01 * wanted.abs().max()  # the folder holds half precision


def test_a_clip_of_another_size_is_refused(tokenizer, tmp_path):
    write_clip(tmp_path, width=16)
    with pytest.raises(UserError, match="another size"):
        mllm_model.borrow_tower(mllm_model.build_model(tokenizer, 32, 1), tmp_path)


@pytest.mark.parametrize(
    ("text", "nouns"),
    [
        ("nothing here", set()),
        (f"Two {TRAIN_OBJECTS[0]}s.", {TRAIN_OBJECTS[0]}),
        (f"x{TRAIN_OBJECTS[0]}", set()),
    ],
)
def test_nouns_in(text, nouns):
    assert mllm_evaluation.nouns_in(text) == nouns


def test_export_loads_by_the_auto_classes_and_talks(trained):
    out, _, done = trained
    assert done["images"] == 4 * SMALL.batch_size
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(out)
    model = AutoModelForImageTextToText.from_pretrained(out)
    assert model.dtype == torch.float32
    chats = [
        [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]
        for image, text in (
            (np.zeros((96, 96, 3), dtype=np.uint8), "Describe the image."),
            (np.full((50, 120, 3), 255, dtype=np.uint8), "Is there a 狼 in the image?"),
        )
    ]
    inputs = processor.apply_chat_template(
        chats,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    )
    tokens = model.generate(**inputs, max_new_tokens=5)
    assert tokens.shape[0] == 2 and tokens.shape[1] > inputs["input_ids"].shape[1]


def test_a_finished_training_resumes_without_work_and_other_settings_are_refused(trained):
    out, work, done = trained
    assert mllm.train_mllm(out, minutes=5, recipe=SMALL, work=work, max_steps=2)["images"] == done["images"]
    with pytest.raises(UserError, match="other settings"):
        mllm.train_mllm(out, minutes=5, seed=9, recipe=SMALL, work=work, max_steps=2)


def test_a_few_steps_learn(tokenizer):
    """Overfitting one batch lowers every loss: gradients reach the tower, the projector and the decoder."""
    torch.manual_seed(0)
    model, rng = mllm_model.build_model(tokenizer, 64, 2), np.random.default_rng(0)
    batch = talk.sample_batch(rng, 8, 3, talk.cached_encode(tokenizer), tokenizer.pad_token_id)
    batch = {k: torch.from_numpy(v) for k, v in batch.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        loss = mllm_model.talk_loss(model, mllm_model.see(model, batch["images"])[1], batch)
        losses.append((float(loss["answer"].detach()), float(loss["caption"].detach())))
        optimizer.zero_grad()
        (loss["answer"] + loss["caption"]).backward()
        optimizer.step()
    assert losses[-1][0] < 0.5 * losses[0][0] and losses[-1][1] < 0.8 * losses[0][1]


def test_no_model_is_a_plain_message(tmp_path):
    with pytest.raises(UserError, match="planted train mllm"):
        mllm.evaluate_mllm(tmp_path, 1, 2)


@pytest.fixture(scope="module")
def quality():
    return mllm.evaluate_mllm(SHIPPED, seed=1, n=500)


@pytest.mark.release
def test_the_shipped_model_answers_rightly_on_worlds_it_never_saw(quality):
    assert quality["answers"] >= 0.95
    assert quality["answers_spurlens"] >= 0.95
    assert quality["answers_background"] >= 0.95
    assert quality["parsed"] == 1.0
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) <= 7e6


@pytest.mark.release
def test_the_shipped_model_names_what_is_in_worlds_it_never_saw(quality):
    assert quality["caption_recall"] >= 0.90
