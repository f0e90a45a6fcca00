"""What a network sees of whole images, where a study computes without an engine.

Not covered: images under ablations (workers/votes/).
"""

import torch
from torch import Tensor

from smoothcert.manifests.job import Preprocess
from smoothcert.workers.votes.smoothed import upsampled


def normalised(pixels_NHWC: Tensor, preprocess: Preprocess) -> Tensor:
    """[images, channels, side, side] float32: what a network sees of whole images.

    Args:
        pixels_NHWC: uint8, of the job's crop.
        preprocess: mean and std of the channels, and how often a pixel is repeated.
    """
    large_NCHW = upsampled(pixels_NHWC, preprocess.upsample).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([preprocess.mean, preprocess.std], device=large_NCHW.device)[:, :, None, None]
    return (large_NCHW - mean) / std
