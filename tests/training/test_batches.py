from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molflow.training.batches import POOL, Buckets


def buckets(count: int = 1000, batch: int = 16, seed: int = 0) -> Buckets:
    members = torch.arange(5000, 5000 + count)
    sizes = torch.randint(3, 30, (count,), generator=torch.Generator().manual_seed(1))
    return Buckets(members, sizes, batch, seed)


@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 5), st.integers(0, 3))
@settings(max_examples=40)
def test_every_member_at_most_once_an_epoch_and_as_many_as_fit(batch: int, extra: int, seed: int, epoch: int) -> None:
    b = buckets(batch + extra, batch, seed)
    steps = range(epoch * b.per_epoch, (epoch + 1) * b.per_epoch)
    seen = torch.cat([b[step] for step in steps])
    assert len(set(seen.tolist())) == len(seen) == (batch + extra) // batch * batch
    assert set(seen.tolist()) <= set(b.members.tolist())
    assert all(len(b[step]) == batch for step in steps)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    forward, backward = buckets(), buckets()
    late = [backward[step] for step in (300, 7, 61, 0)]  # another order, epochs out of the cache again
    for step, batch in zip((300, 7, 61, 0), late, strict=True):
        assert torch.equal(forward[step], batch)
    assert not torch.equal(buckets(seed=1)[0], forward[0])
    assert not torch.equal(torch.cat([forward[k] for k in range(62)]), torch.cat([forward[62 + k] for k in range(62)]))


def test_all_members_are_met_over_a_few_epochs() -> None:
    b = buckets(50, 16)
    seen = torch.cat([b[step] for step in range(20 * b.per_epoch)])
    assert set(seen.tolist()) == set(b.members.tolist())


def test_padding_is_small_and_batches_do_not_come_sorted_by_size() -> None:
    b = buckets(4000, 16)
    sizes = [b.sizes[b[step] - 5000] for step in range(b.per_epoch)]
    for power in (1, 2):  # atoms and pairs of atoms
        filled, places = sum(int((s**power).sum()) for s in sizes), sum(len(s) * int(s.max()) ** power for s in sizes)
        assert 1 - filled / places < 0.15
    unsorted = b.sizes[torch.randperm(4000, generator=torch.Generator().manual_seed(0))].split(16)
    assert sum(len(s) * int(s.max()) for s in unsorted) / int(b.sizes.sum()) > 1.5
    means = torch.stack([s.float().mean() for s in sizes])
    order = torch.corrcoef(torch.stack([means, torch.arange(len(means)).float()]))[0, 1]
    assert abs(order) < 0.3 and means.std() > 3
    assert POOL > 1


@given(st.lists(st.integers(1, 200), min_size=1, max_size=300), st.integers(1, 20), st.integers(0, 3))
@settings(max_examples=60)
def test_batches_of_equal_pairs_share_out_all_molecules(sizes: list[int], batch: int, seed: int) -> None:
    batch = min(batch, len(sizes))
    b = Buckets(torch.arange(len(sizes)), torch.tensor(sizes), batch, seed, equal_pairs=True)
    seen = [b[step] for step in range(b.per_epoch)]
    assert all(len(one) for one in seen)
    assert len(torch.cat(seen).unique()) == sum(map(len, seen)) == len(sizes) // batch * batch


def test_batches_of_equal_pairs_need_the_same_memory() -> None:
    sizes = torch.randint(10, 100, (4000,), generator=torch.Generator().manual_seed(1))
    most = {}
    for equal in (False, True):
        b = Buckets(torch.arange(4000), sizes, 16, 0, equal_pairs=equal)
        places = [len(b[step]) * int(sizes[b[step]].max()) ** 2 for step in range(b.per_epoch)]
        most[equal] = max(places) / (sum(places) / len(places))
    assert most[True] < 1.35 < 2 < most[False]


def test_batches_are_not_the_same_company_every_epoch() -> None:
    b = buckets(320, 16)
    epochs = [{frozenset(b[e * b.per_epoch + k].tolist()) for k in range(b.per_epoch)} for e in range(2)]
    assert len(epochs[0] & epochs[1]) <= 1
