import pytest
import torch
import torch.nn.functional as F
from nano import nano_preset

from cavis.losses.criterion import InstanceLoss
from cavis.losses.matching import GridTargets
from cavis.losses.partial_labels import on_annotated, without_unknown
from cavis.records import LayerPrediction

K = 4  # labels 0 ... 3; 4 is "no object"
NONE = torch.zeros(0, dtype=torch.long)


def case(seed=0, clips=2, queries=6):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(clips, 2, queries, K + 1, generator=generator)
    wanted = torch.full(logits.shape[:3], K)
    wanted[:, :, 0] = 1
    return logits.requires_grad_(), wanted


def loss(logits, wanted, unknown, known=None):
    known = torch.zeros_like(wanted, dtype=torch.bool) if known is None else known
    entropy = F.cross_entropy(
        without_unknown(logits, wanted, unknown, known).flatten(0, 2), wanted.flatten(), reduction="none"
    )
    return entropy.unflatten(0, wanted.shape)


def gradient(logits, wanted, unknown, known=None):
    return torch.autograd.grad(loss(logits, wanted, unknown, known).sum(), logits)[0]


def test_complete_labels_change_nothing():
    logits, wanted = case()
    assert without_unknown(logits, wanted, (NONE, NONE), wanted < 0).equal(logits)


def test_unknown_classes_get_no_gradient_in_their_clip_alone_where_nothing_was_annotated():
    logits, wanted = case()
    partly, fully = gradient(logits, wanted, (torch.tensor([0, 3]), NONE)), gradient(logits, wanted, (NONE, NONE))
    assert not partly[0][:, 1:][..., [0, 3]].any()
    assert partly[0][:, 1:][..., [1, 2, K]].any()
    assert partly[1].equal(fully[1])


def test_a_matched_query_learns_from_all_classes():
    logits, wanted = case()
    partly, fully = gradient(logits, wanted, (torch.tensor([0, 3]), NONE)), gradient(logits, wanted, (NONE, NONE))
    assert partly[0][:, 0].equal(fully[0][:, 0])
    assert fully[0][:, 0].all()


def test_a_second_query_on_an_annotated_object_learns_that_it_is_none():
    logits, wanted = case()
    with torch.no_grad():
        logits[..., 2] += 20
    known = torch.zeros_like(wanted, dtype=torch.bool)
    known[0, :, 3] = True
    partly = gradient(logits, wanted, (torch.tensor([2]), NONE), known)
    fully = gradient(logits, wanted, (NONE, NONE))
    assert partly[0][:, 3].equal(fully[0][:, 3])
    assert not partly[0][:, [1, 2, 4, 5]].any()


def test_the_loss_of_an_unmatched_query_is_that_of_the_known_classes_alone():
    logits, wanted = case()
    unknown = torch.tensor([0, 3])
    decided = ~torch.isin(logits[..., :K].argmax(dim=-1), unknown)[:, :, 1:]
    known = F.cross_entropy(
        logits[:, :, 1:][..., [1, 2, K]].flatten(0, 2), torch.full((decided.numel(),), 2), reduction="none"
    ).view_as(decided)
    assert decided.any()
    assert (~decided).any()
    found = loss(logits, wanted, (unknown, unknown))[:, :, 1:]
    torch.testing.assert_close(found, torch.where(decided, known, 0.0))


@pytest.mark.parametrize("seed", range(3))
def test_masks_that_overlap_an_annotated_object_by_half_are_of_it(seed):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 3, 8, 12, generator=generator) < 0.6
    masks = coarse.repeat_interleave(4, dim=-2).repeat_interleave(4, dim=-1).float()
    flipped = torch.rand(2, 3, 8, 12, generator=generator) < torch.tensor([0.0, 0.3, 0.9])[:, None, None]
    found = torch.cat((coarse ^ flipped, torch.rand(2, 4, 8, 12, generator=generator) < 0.1), dim=1)
    logits = torch.where(found, 2.0, -3.0)
    overlaps = [
        [max(float((f & m).sum() / (f | m).sum()) for m in frame.unbind()) for f in row.unbind()]
        for row, frame in zip(found, coarse, strict=True)
    ]
    assert on_annotated(logits, masks).equal(torch.tensor(overlaps) >= 0.5)
    assert on_annotated(logits, masks)[:, 0].all()
    assert not on_annotated(logits, masks).all()
    assert not on_annotated(logits, masks[:, :0]).any()


def test_the_class_term_punishes_duplicates_of_partly_labelled_clips():
    """Two queries on one annotated object, both sure of a class that nobody looked for: one is matched, one is not."""
    masks = torch.zeros(1, 1, 16, 16)
    masks[..., 4:12, 4:12] = 1
    objects = (GridTargets(torch.tensor([1]), masks, torch.ones(1, 1) > 0, torch.tensor([0]), torch.tensor([2])),)
    here, elsewhere = 8 * masks[0, :, 2::4, 2::4] - 4, torch.full((1, 4, 4), -4.0)
    logits = torch.zeros(1, 1, 2, K + 1)
    logits[..., 2] = 5
    logits.requires_grad_()
    gradients = []
    for second in (here, elsewhere):
        layer = LayerPrediction(logits, torch.stack((here, second), dim=1)[None])
        term = InstanceLoss(nano_preset().loss, K)(layer, objects, (torch.tensor([[0]]),))["class"]
        gradients.append(torch.autograd.grad(term, logits)[0])
    assert gradients[0][0, 0, 1, 2] > 0
    assert not gradients[1][0, 0, 1].any()


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
    partly = without_unknown(logits, wanted, (torch.arange(K), torch.arange(K)), wanted < 0)
    mean = F.cross_entropy(partly.flatten(0, 2), wanted.flatten(), weight=torch.tensor([1.0, 1, 1, 1, 0.1]))
    assert mean == 0
    assert torch.autograd.grad(mean, logits)[0].eq(0).all()
