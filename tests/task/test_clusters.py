"""Several models in one record come apart as they went in."""

from hypothesis import given
from hypothesis import strategies as st

from task.clusters import apart, joined, numbered

MODEL = st.dictionaries(st.text("ab.7", min_size=1), st.integers(), min_size=1)


@given(st.lists(MODEL, min_size=1, max_size=12))
def test_what_is_joined_comes_apart(models):
    assert apart(joined(models)) == dict(enumerate(models))


@given(MODEL, st.integers(0, 30))
def test_one_of_several_says_which(model, number):
    assert apart(numbered(model, number)) == {number: model}


@given(MODEL)
def test_a_model_without_numbers_is_the_only_one(model):
    assert apart(model) == {0: model}
    assert apart({}) == {0: {}}
