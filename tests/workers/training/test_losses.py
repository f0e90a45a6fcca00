"""The plain loss equals torch's own, whatever the number format of the targets."""

import pytest
import torch
import torch.nn.functional as F

from smoothcert.workers.training.losses import CrossEntropy, ForwardPass, Together, cross_entropy
from smoothcert.workers.training.recipe import forward_of, starting_network
from tests.helpers.together import together_of
from tests.helpers.trainings import small_training


def test_it_is_the_summed_cross_entropy(tmp_path, store):
    """With label smoothing, by hand: each class gets its part of the smoothed share."""
    training = small_training(tmp_path, regularisation={"label_smoothing": 0.3})
    forward_pass = ForwardPass(training, forward_of(training, starting_network(training, store)))
    together = together_of(training, forward_pass.forward, images=5)
    loss, logits = CrossEntropy(training, forward_pass)(together, 0)
    shares = 0.7 * F.one_hot(together.targets, logits.shape[1]) + 0.3 / logits.shape[1]
    torch.testing.assert_close(loss, -(shares * logits.log_softmax(dim=1)).sum())


def test_mixed_targets_are_smoothed_already(tmp_path):
    """mixup smooths them itself."""
    logits, shares = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[0.5, 0.3, 0.2]])
    smooth = small_training(tmp_path, regularisation={"label_smoothing": 0.3})
    expected = -(shares * logits.log_softmax(dim=1)).sum()
    torch.testing.assert_close(cross_entropy(smooth, logits, shares), expected)


@pytest.mark.parametrize("targets", [torch.tensor([2, 0]), torch.tensor([[0.1, 0.2, 0.7], [0.6, 0.4, 0.0]])])
def test_the_class_of_a_mixed_image_is_its_largest_share(targets):
    """The class itself, if images were not mixed."""
    together = Together(torch.zeros(2, 3, 4, 4), None, targets, torch.zeros(2))
    assert together.classes.tolist() == [2, 0]
