"""The architecture: no circles of imports, between files or rooms, and no import upwards."""

import pytest

from benchmarks.straight_walk import ROOMS, between_rooms, circles, imports, room, upwards

pytestmark = pytest.mark.no_nnx


def test_no_circles_between_files():
    assert circles(imports()) == []


def test_no_circles_between_rooms():
    assert circles(between_rooms(imports())) == []


def test_no_import_upwards():
    graph = imports()
    assert {room(name) for name in graph} - {""} <= set(ROOMS), "a new room needs its place in ROOMS"
    assert upwards(graph) == []


def test_circles_and_arrows_upwards_are_found():
    """What the tests above rely on."""
    package = "flaxformer_edu"
    below, above = f"{package}.layers.blocks", f"{package}.training.step"
    graph = {below: {above}, above: {f"{package}.models.vit"}, f"{package}.models.vit": {below}}
    assert circles(graph) == [set(graph)]
    assert circles(between_rooms(graph)) == [{"layers", "models", "training"}]
    assert upwards(graph) == ["layers imports training"]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
