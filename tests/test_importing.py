"""Imports during which Python does not look for garbage."""

import gc

import pytest

from mech_pipeline.importing import without_looking_for_garbage


@pytest.fixture(autouse=True)
def as_before():
    looks = gc.isenabled()
    yield
    (gc.enable if looks else gc.disable)()


@pytest.mark.parametrize("fails", [False, True])
def test_garbage_is_looked_for_again_after_the_imports_however_they_end(fails):
    gc.enable()
    with pytest.raises(ImportError) if fails else without_looking_for_garbage():
        with without_looking_for_garbage():
            assert not gc.isenabled()
            if fails:
                raise ImportError
        assert gc.isenabled() != (not fails), "the outer block still imports"
    assert gc.isenabled()


def test_who_has_turned_it_off_finds_it_off():
    gc.disable()
    with without_looking_for_garbage():
        assert not gc.isenabled()
    assert not gc.isenabled()
