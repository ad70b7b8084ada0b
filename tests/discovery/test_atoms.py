"""Atoms: planted groups come back, noise has none, what cannot be done is refused; tracks link what is found again."""

import numpy as np
import pytest
import torch
from sklearn.metrics import homogeneity_score

from mech_pipeline.attribution.ledger.ledger import replay_with_factors
from mech_pipeline.attribution.per_example.factor_sketches import FactorSketcher
from mech_pipeline.discovery.atoms import Found, atoms, coherence
from mech_pipeline.discovery.tracks import Link, least_shared, links, tracks
from mech_pipeline.discovery.update_rows import window_rows
from mech_pipeline.errors import MechError
from mech_pipeline.training.update.optimizer import State
from tests.support.models import CONTEXT, trainer_of

WIDTH, SIZE = 200, 10


def generator(seed=0):
    return np.random.default_rng(seed)


def grouped(strength, groups=2, examples=120, seed=1, directions_seed=2):
    """Noise of length about one, and a direction of its own for each group."""
    shared = generator(directions_seed).standard_normal((groups, WIDTH)) / WIDTH**0.5
    kind = np.arange(examples) % groups
    noise = generator(seed).standard_normal((examples, WIDTH)) / WIDTH**0.5
    return noise + strength * shared[kind], kind


def found(rows, most=4, seed=0):
    return atoms(rows, rows, most, SIZE, generator(seed))


def homogeneity(result, kind):
    """Of the kinds of members among atoms; 1: no atom mixes kinds, 0: as at random."""
    members = [kind[atom.members] for atom in result.atoms]
    return homogeneity_score(np.concatenate(members), np.repeat(np.arange(len(members)), SIZE))


def test_both_ends_of_a_direction_are_the_two_groups_that_were_planted():
    rows, kind = grouped(0.8)
    result = found(rows)
    assert len(result.atoms) == 2
    assert homogeneity(result, kind) == 1
    assert all(atom.is_coherent for atom in result.atoms)
    assert result.first > 2 * result.first_by_chance
    shuffled = generator().permutation(kind)
    assert homogeneity(result, shuffled) < 0.2, "labels that mean nothing"


def test_three_groups_take_more_than_one_direction_and_every_group_has_an_atom():
    rows, kind = grouped(1.0, groups=3)
    result = found(rows)
    pure = {int(kind[atom.members][0]) for atom in result.atoms if len(set(kind[atom.members])) == 1}
    assert len(result.atoms) >= 4
    assert pure == {0, 1, 2}


def test_rows_with_nothing_in_common_have_next_to_no_atoms():
    """A direction counts beyond the largest of three permuted ones, so by chance one in four does."""
    many = [len(found(grouped(0, seed=seed)[0], seed=seed).atoms) for seed in range(20)]
    assert np.mean(many) <= 2 * 2 / 4 + 0.6
    assert max(many) <= 4


def test_what_all_examples_do_is_no_atom():
    rows, _ = grouped(0)
    common = generator(5).standard_normal(WIDTH)
    assert coherence(rows + common) > 0.9
    result = found(rows + common)
    assert len(result.atoms) <= 2
    assert result.first < 2 * result.first_by_chance


def test_coherence_is_of_the_other_sketch_and_held_against_groups_of_its_size():
    rows, _ = grouped(0.8)
    raw = generator(9).standard_normal(rows.shape)
    result = atoms(rows, raw, 4, SIZE, generator())
    assert all(abs(atom.coherence) < 0.1 for atom in result.atoms), "its rows have nothing in common"
    pairs = [coherence(raw[generator(seed).choice(120, SIZE, replace=False)]) for seed in range(50)]
    assert result.atoms[0].by_chance == pytest.approx(np.mean(pairs), abs=0.01)
    assert result.atoms[0].by_chance_most >= np.quantile(pairs, 0.9)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (np.ones((29, WIDTH)), "29 examples are too few for atoms of 10"),
        (np.zeros((40, WIDTH)), "no example moved any weight"),
        (np.full((40, WIDTH), np.nan), "the gradients of 40 examples are no numbers"),
    ],
)
def test_what_has_no_atoms_is_refused_in_words(rows, said):
    with pytest.raises(MechError, match=said):
        found(rows)


def two_windows(strength, other=2):
    return [found(grouped(strength, seed=1)[0]), found(grouped(strength, seed=7, directions_seed=other)[0])]


def test_an_atom_goes_on_where_other_examples_of_the_same_groups_are_found_again():
    before, after = two_windows(0.8)
    linked = links(before, after)
    assert sorted(link.before for link in linked) == [0, 1]
    assert all(link.overlap > 0.2 for link in linked)
    for link in linked:
        cosine = before.atoms[link.before].direction @ after.atoms[link.after].direction
        assert cosine > 0.5


def test_other_groups_in_the_next_window_are_other_atoms():
    before, after = two_windows(0.8, other=77)
    assert before.atoms
    assert after.atoms
    assert links(before, after) == []


def test_two_choices_at_random_share_too_few():
    enough, draw = least_shared([120, 120], SIZE), generator()
    shared = [
        sum(len({*draw.choice(120, SIZE, False)} & {*draw.choice(120, SIZE, False)}) for _ in range(2))
        for _ in range(500)
    ]
    assert max(shared) < enough


def test_nothing_goes_on_from_a_window_without_atoms():
    before, _ = two_windows(0.8)
    assert links(before, Found(before.rows, (), 0.1, 0.2)) == []


def test_tracks_are_born_peak_and_die():
    linked = [[Link(0, 1, 0.5)], [Link(1, 0, 0.4)], []]
    first, second, third = tracks([[0.1], [0.7, 0.3], [0.2], [0.9]], linked)[:3]
    assert first.atoms == ((0, 0), (1, 1), (2, 0))
    assert (first.birth, first.peak, first.death) == (0, 1, 2)
    assert second.atoms == ((1, 0),)
    assert (third.birth, third.death) == (3, 3)


def two_kinds(shuffled=False):
    """Examples of the first half of the vocabulary, and of the second; shuffled: their tokens at random."""
    drawn = torch.randint(0, 6, (240, CONTEXT), generator=torch.Generator().manual_seed(3))
    drawn[1::2] += 6
    return (
        drawn.flatten()[torch.randperm(drawn.numel(), generator=torch.Generator().manual_seed(4))].view_as(drawn)
        if shuffled
        else drawn
    )


def window_of(pool, updates=6):
    trainer = trainer_of(batch=24)
    trainer.pool = pool
    *_, last = trainer.updates(State.initial(trainer.flat.vector), 10)
    made, factors = replay_with_factors(trainer, last.after, 10 + updates)
    rows = window_rows(FactorSketcher(trainer.flat, 0), trainer.optimizer, made, factors)
    return rows, atoms(rows.applied.numpy(), rows.raw.numpy(), 1, 24, generator())


def test_a_run_on_two_kinds_of_text_has_an_atom_of_each():
    rows, result = window_of(two_kinds())
    kind = rows.examples.numpy() % 2
    assert [len(set(kind[atom.members])) for atom in result.atoms] == [1, 1]
    assert {int(kind[atom.members][0]) for atom in result.atoms} == {0, 1}
    assert all(atom.coherence > atom.by_chance + 0.2 for atom in result.atoms)


def test_a_run_on_the_same_tokens_shuffled_has_no_atom_of_a_kind():
    rows, result = window_of(two_kinds(shuffled=True))
    kind = rows.examples.numpy() % 2
    for atom in result.atoms:
        assert 0.2 < kind[atom.members].mean() < 0.8
    _, planted = window_of(two_kinds())
    assert result.first < planted.first / 2
