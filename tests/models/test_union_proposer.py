"""Several proposers as one, and the checklist."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.models import registry
from pipeline.models.checklist_proposer import CHECKLIST, checklist_proposer
from pipeline.models.ledger import Ledger
from pipeline.models.union_proposer import UnionProposer, union_proposer
from pipeline.models.words import normalise
from pipeline.properties import PROPERTY_CUES
from pipeline.records import CUE_TYPES
from tests.llm_server import Server

CAPTIONS = {"dog": ["A dog and a leash."] * 12 + ["A dog."] * 8, "cat": ["A cat."] * 20}


def union(*members: dict, cache: Path = Path("unused")) -> UnionProposer:
    options = registry.check_options("propose", "union", {"members": list(members)})
    return union_proposer(0, cache, Ledger(cache / "llm.jsonl"), **options)


def test_each_attribute_once_with_all_its_sources() -> None:
    both = union({"kind": "captions"}, {"kind": "list", "attributes": ["Leashes", "bone", "snow | Background"]})
    found = {a.phrase: a for a in both.propose("dog", list(CAPTIONS), CAPTIONS).attributes}
    assert {phrase: a.source for phrase, a in found.items()} == {
        "leash": "captions, list",
        "bone": "list",
        "snow": "list",
    }
    assert "12 of 20 captions" in found["leash"].reason and found["leash"].score > 1.96


def test_only_the_members_that_cost_nothing_are_asked_for_another_contrast() -> None:
    contrast = union({"kind": "list", "attributes": ["bone"]}, {"kind": "captions"}).contrast
    assert contrast is not None
    assert [a.phrase for a in contrast.propose("dog", list(CAPTIONS), CAPTIONS).attributes] == ["leash"]
    assert union({"kind": "list", "attributes": ["bone"]}).contrast is None


def test_a_member_without_budget_leaves_the_others_at_work(server: Server, tmp_path: Path) -> None:
    model = {"kind": "openai", "model": "m", "base_url": server.url, "budget": {"calls": 0}}
    proposals = union({"kind": "captions"}, model, cache=tmp_path).propose("dog", list(CAPTIONS), CAPTIONS)
    assert [a.phrase for a in proposals.attributes] == ["leash"] and "0 calls" in proposals.stopped
    assert server.requests == []


def test_the_estimate_is_that_of_the_members_that_cost(server: Server, tmp_path: Path) -> None:
    model = {"kind": "openai", "model": "m", "base_url": server.url, "price": {"input": 1, "output": 2}}
    costly = union({"kind": "captions"}, model, cache=tmp_path).estimate(["dog", "cat"], CAPTIONS)
    assert costly.calls == 4 and costly.usd is not None and costly.usd > 0
    free = union({"kind": "captions"}).estimate(["dog"], CAPTIONS)
    assert (free.calls, free.tokens, free.usd) == (0, 0, 0)


@pytest.mark.parametrize(
    "members, said",
    [
        ([], "at least one member"),
        ([{"attributes": ["a"]}], "needs a 'kind'"),
        ([{"kind": "caption"}], "Did you mean 'captions'"),
        ([{"kind": "captions", "mots": 3}], "Did you mean 'most'"),
    ],
)
def test_wrong_members_are_told_before_any_work(members: list, said: str) -> None:
    with pytest.raises(UserError, match=said):
        registry.check_options("propose", "union", {"members": members})


def test_the_checklist_covers_the_nine_types_in_the_spelling_of_attributes() -> None:
    assert set(CHECKLIST) == set(CUE_TYPES) and all(CHECKLIST.values())
    phrases = [phrase for listed in CHECKLIST.values() for phrase in listed]
    assert len(phrases) == len(set(phrases)) and set(PROPERTY_CUES) <= set(phrases)
    assert [phrase for phrase in phrases if phrase not in PROPERTY_CUES and normalise(phrase) != phrase] == []


def test_a_class_is_not_asked_about_itself_and_types_can_be_chosen() -> None:
    options = registry.check_options("propose", "checklist", {"types": ["Background"]})
    proposer = checklist_proposer(0, Path("unused"), **options)
    listed = [a.phrase for a in proposer.propose("snow plough", [], {}).attributes]
    assert "grass" in listed and "snow" not in listed and "close-up view" not in listed
    with pytest.raises(UserError, match="types"):
        registry.check_options("propose", "checklist", {"types": ["Context"]})
    assert proposer.fingerprint != checklist_proposer(0, Path("unused")).fingerprint
