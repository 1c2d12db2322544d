from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest


@pytest.mark.parametrize("by", ["file", "tcp"])
def test_learners_meet_and_agree(by, tmp_path):
    import torch

    from mltoolkit.rllib.core.learner.torch._gloo import GlooCollective, rendezvous_by_file, rendezvous_by_tcp

    master = None
    if by == "tcp":
        master = rendezvous_by_tcp("127.0.0.1", 0, 2, is_master=True, timeout_s=10.0)

    def learner(rank):
        if by == "file":
            store = rendezvous_by_file(str(tmp_path / "meeting"), 2, 10.0)
        elif rank == 0:
            store = master
        else:
            store = rendezvous_by_tcp("127.0.0.1", master.port, 2, is_master=False, timeout_s=10.0)
        collective = GlooCollective(store, rank, 2, address="127.0.0.1", timeout_s=10.0)
        mean, first = torch.tensor([1.0 + rank, 4.0]), torch.tensor([5.0 + rank])
        collective.average(mean)
        collective.broadcast(first)
        results = mean.tolist(), first.tolist(), collective.total([0.1, rank]), collective.largest([rank, 7 - rank])
        collective.close()
        return results

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(learner, range(2))) == [([1.5, 4.0], [5.0], [0.2, 1.0], [1, 7])] * 2


def test_waiting_for_a_learner_that_never_comes_ends_with_its_rank(tmp_path):
    from mltoolkit.rllib.core.learner.errors import LearnerDiedError
    from mltoolkit.rllib.core.learner.torch._gloo import GlooCollective, rendezvous_by_file

    store = rendezvous_by_file(str(tmp_path / "meeting"), 2, 0.2)
    with pytest.raises(LearnerDiedError, match=r"Learner 0 of 2 .* waited for it for 0.2 s"):
        GlooCollective(store, 0, 2, address="127.0.0.1", timeout_s=0.2)
