import torch
import torch.nn.functional as F

from cavis.losses.partial_labels import without_unknown

K = 4  # labels 0 ... 3; 4 is "no object"
NONE = torch.zeros(0, dtype=torch.long)


def case(seed=0, clips=2, queries=6):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(clips, 2, queries, K + 1, generator=generator)
    wanted = torch.full(logits.shape[:3], K)
    wanted[:, :, 0] = 1
    return logits.requires_grad_(), wanted


def loss(logits, wanted, unknown):
    entropy = F.cross_entropy(
        without_unknown(logits, wanted, unknown).flatten(0, 2), wanted.flatten(), reduction="none"
    )
    return entropy.unflatten(0, wanted.shape)


def gradient(logits, wanted, unknown):
    return torch.autograd.grad(loss(logits, wanted, unknown).sum(), logits)[0]


def test_complete_labels_change_nothing():
    logits, wanted = case()
    assert without_unknown(logits, wanted, (NONE, NONE)) is logits


def test_unknown_classes_get_no_gradient_in_their_clip_alone():
    logits, wanted = case()
    partly, fully = gradient(logits, wanted, (torch.tensor([0, 3]), NONE)), gradient(logits, wanted, (NONE, NONE))
    assert not partly[0][..., [0, 3]].any()
    assert partly[0][:, 0][..., [1, 2, K]].all()
    assert partly[1].equal(fully[1])


def test_the_loss_is_that_of_the_known_classes_alone():
    logits, wanted = case()
    unknown = torch.tensor([0, 3])
    decided = wanted.ne(K) | ~torch.isin(logits[..., :K].argmax(dim=-1), unknown)
    known = F.cross_entropy(
        logits[..., [1, 2, K]].flatten(0, 2), torch.where(wanted == 1, 0, 2).flatten(), reduction="none"
    ).unflatten(0, wanted.shape)
    assert decided.any()
    assert (~decided).any()
    torch.testing.assert_close(loss(logits, wanted, (unknown, unknown)), torch.where(decided, known, 0.0))


def test_a_query_that_may_see_an_unknown_object_is_not_pushed_to_no_object():
    logits, wanted = case()
    with torch.no_grad():
        logits[..., 2] += 20
    partly = gradient(logits, wanted, (torch.tensor([2]), NONE))
    assert not partly[0][:, 1:].any()
    assert partly[0][:, 0].any()  # matched queries learn all the same
    assert partly[1][:, 1:].any()


def test_an_annotated_object_of_an_unknown_class_is_learned():
    logits, wanted = case()
    partly = gradient(logits, wanted, (torch.tensor([1]), NONE))
    assert (partly[0][:, 0, 1] < 0).all()


def test_the_average_stays_a_number_when_all_queries_are_undecided():
    logits, _ = case()
    wanted = torch.full(logits.shape[:3], K)
    partly = without_unknown(logits, wanted, (torch.arange(K), torch.arange(K)))
    mean = F.cross_entropy(partly.flatten(0, 2), wanted.flatten(), weight=torch.tensor([1.0, 1, 1, 1, 0.1]))
    assert mean == 0
    assert torch.autograd.grad(mean, logits)[0].eq(0).all()
