"""Snapshot: what readers hold cannot change under them (G7)."""

from __future__ import annotations

import copy
import json
import pickle
from types import MappingProxyType

import pytest

from siteconfig.snapshot import FrozenDict, FrozenList, Snapshot, freeze, same


@pytest.fixture
def snapshot() -> Snapshot:
    """A snapshot with a field of each container."""
    values = {"timeout": 30, "tags": ["a", {"b": [1]}], "extra": {"New_Setting": "value"}}
    return Snapshot("shop.Config", values, version=7)


class TestReading:
    def test_a_setting_is_an_attribute_and_an_item(self, snapshot: Snapshot) -> None:
        """Both spellings give the same value."""
        assert snapshot.timeout == snapshot["timeout"] == 30

    def test_iterates_over_field_names(self, snapshot: Snapshot) -> None:
        """As a mapping it holds the fields, and neither version nor key."""
        assert list(snapshot) == ["timeout", "tags", "extra"]
        assert len(snapshot) == 3
        assert "version" not in snapshot
        assert snapshot.version == 7

    @pytest.mark.parametrize("name", ["TIMEOUT", "timeout", "TimeOut"])
    def test_get_setting_takes_any_case(self, snapshot: Snapshot, name: str) -> None:
        """Names are found in lower, upper and mixed case."""
        assert snapshot.get_setting(name) == 30

    @pytest.mark.parametrize("name", ["new_setting", "NEW_SETTING", "New_Setting"])
    def test_get_setting_finds_extra_settings(self, snapshot: Snapshot, name: str) -> None:
        """What is no field is found in extra, however it was spelled there."""
        assert snapshot.get_setting(name) == "value"

    def test_get_setting_of_an_unknown_name_gives_the_default(self, snapshot: Snapshot) -> None:
        """None unless another default is asked for."""
        assert snapshot.get_setting("nope") is None
        assert snapshot.get_setting("nope", 5) == 5

    def test_a_field_beats_an_extra_setting_of_its_name(self) -> None:
        """A field added later takes over from the extra setting it replaces."""
        snapshot = Snapshot("shop.Config", {"timeout": 30, "extra": {"timeout": 99}})
        assert snapshot.get_setting("TIMEOUT") == 30

    def test_an_unknown_attribute_lists_near_names(self, snapshot: Snapshot) -> None:
        """As with the manager."""
        with pytest.raises(AttributeError, match=r"Did you mean 'timeout'\?"):
            _ = snapshot.timout

    def test_a_copy_is_the_snapshot_itself(self, snapshot: Snapshot) -> None:
        """Nothing could be done to a copy; and it is not pickled, as it may hold secrets."""
        assert copy.copy(snapshot) is copy.deepcopy(snapshot) is snapshot
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(snapshot)

    def test_repr_tells_no_value(self) -> None:
        """A repr lands in logs and error reports; settings hold secrets."""
        snapshot = Snapshot("shop.Config", {"api_key": "s3cret"}, version=2)
        assert repr(snapshot) == "<Snapshot of shop.Config, version 2>"


class TestFrozen:
    def test_attributes_cannot_be_set(self, snapshot: Snapshot) -> None:
        """The refusal says how settings are written."""
        with pytest.raises(TypeError, match=r"'timeout' was not set.*set_setting"):
            snapshot.timeout = 5
        with pytest.raises(TypeError, match="'timeout' was not deleted"):
            del snapshot.timeout
        assert snapshot.timeout == 30

    def test_items_cannot_be_set(self, snapshot: Snapshot) -> None:
        """It is a Mapping, not a MutableMapping."""
        with pytest.raises(TypeError):
            snapshot["timeout"] = 5

    @pytest.mark.parametrize(
        ("method", "arguments"),
        {
            "append": [1],
            "extend": [[1]],
            "insert": [0, 1],
            "clear": [],
            "pop": [],
            "remove": ["a"],
            "reverse": [],
            "sort": [],
            "__setitem__": [0, 1],
            "__delitem__": [0],
            "__iadd__": [[1]],
            "__imul__": [2],
        }.items(),
    )
    def test_lists_cannot_be_changed_in_place(
        self, snapshot: Snapshot, method: str, arguments: list[object]
    ) -> None:
        """A view that appends to a list must not change it for everyone (H25)."""
        with pytest.raises(TypeError, match="cannot be changed in place"):
            getattr(snapshot.tags, method)(*arguments)
        assert snapshot.tags == ["a", {"b": [1]}]

    @pytest.mark.parametrize(
        ("method", "arguments"),
        {
            "update": [{"b": 2}],
            "clear": [],
            "pop": ["b"],
            "popitem": [],
            "setdefault": ["c", 1],
            "__setitem__": ["b", 2],
            "__delitem__": ["b"],
            "__ior__": [{"b": 2}],
        }.items(),
    )
    def test_dicts_cannot_be_changed_in_place(
        self, snapshot: Snapshot, method: str, arguments: list[object]
    ) -> None:
        """Nor those inside other containers, nor lists inside them."""
        with pytest.raises(TypeError, match="cannot be changed in place"):
            getattr(snapshot.tags[1], method)(*arguments)
        with pytest.raises(TypeError, match="cannot be changed in place"):
            snapshot.tags[1]["b"].append(2)
        assert snapshot.tags == ["a", {"b": [1]}]

    def test_the_source_may_change_afterwards(self) -> None:
        """The snapshot holds a copy of what it was made from."""
        tags = ["a"]
        snapshot = Snapshot("shop.Config", {"tags": tags})
        tags.append("b")
        assert snapshot.tags == ["a"]

    @pytest.mark.parametrize(
        "copied",
        [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))],
        ids=["copy", "deepcopy", "pickle"],
    )
    def test_copies_are_plain_and_may_change(self, snapshot: Snapshot, copied) -> None:
        """Who wants another value works on a copy."""
        tags = copied(snapshot.tags)
        assert type(tags) is list
        tags.append(1)
        assert type(copied(snapshot.extra)) is dict

    def test_deep_copies_are_plain_all_the_way_down(self, snapshot: Snapshot) -> None:
        """Nested containers of a deep copy may change as well."""
        tags = copy.deepcopy(snapshot.tags)
        tags[1]["b"].append(2)
        assert tags == ["a", {"b": [1, 2]}]

    def test_containers_serialize_like_plain_ones(self, snapshot: Snapshot) -> None:
        """json knows nothing of frozen containers and need not."""
        assert json.dumps(snapshot.tags) == '["a", {"b": [1]}]'

    def test_other_containers_are_frozen_too(self) -> None:
        """Sets, tuples and buffers come out as what cannot change."""
        assert freeze({1, 2}) == frozenset({1, 2})
        assert type(freeze(([1],))[0]) is FrozenList
        assert freeze(bytearray(b"x")) == freeze(memoryview(b"x")) == b"x"
        assert type(freeze({"a": {}})["a"]) is FrozenDict


class TestReplaced:
    def test_replaces_fields_and_leaves_the_original(self, snapshot: Snapshot) -> None:
        """The original snapshot is somebody's, and stays."""
        other = snapshot.replaced({"timeout": 5})
        assert (other.timeout, snapshot.timeout) == (5, 30)
        assert other.version == 7

    def test_other_names_become_extra_settings(self, snapshot: Snapshot) -> None:
        """They are added to those there are."""
        other = snapshot.replaced({"newer": 1})
        assert other.extra == {"New_Setting": "value", "newer": 1}
        assert other.get_setting("NEWER") == 1


class TestChangedFrom:
    @pytest.mark.parametrize(
        ("old", "new", "equal"),
        [
            (1, 1, True),
            (1, True, False),
            (1, 1.0, False),
            ([1], [1], True),
            ([1], [True], False),
            ({"a": [0]}, {"a": [False]}, False),
            ({"a": 1}, {"b": 1}, False),
            ([1], [1, 2], False),
            (None, 0, False),
        ],
    )
    def test_same_compares_types_all_the_way_down(self, old, new, equal) -> None:
        """True in place of 1 is a change, also inside JSON."""
        assert same(old, new) is equal

    def test_names_what_differs(self, snapshot: Snapshot) -> None:
        """Also fields that only one of the two has, as after a deploy."""
        new = Snapshot("shop.Config", {"timeout": 31, "tags": snapshot.tags, "added": 1})
        assert new.changed_from(snapshot) == {"timeout", "added", "extra"}

    def test_an_unreadable_mark_goes_with_a_replaced_value(self) -> None:
        """A test override of an unreadable setting is readable."""
        unreadable = MappingProxyType({"timeout": "default", "tags": "default"})
        snapshot = Snapshot("shop.Config", {"timeout": 1, "tags": []}, unreadable=unreadable)
        assert snapshot.replaced({"timeout": 2})._unreadable == {"tags": "default"}
