"""Masks for training the region-adaptive transform: superpixels of each crop, merged into a few regions."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def segment(crops: Tensor, segments: int = 12) -> Tensor:
    """Regions at 1/8 of crops (B, 3, H, W) uint8, by SLIC superpixels (Achanta et al. 2012).

    Args:
        segments: regions wanted a crop, about.

    Returns:
        (B, H/8, W/8) int64, numbered from 0 in each crop.
    """
    from skimage.segmentation import slic

    small = F.avg_pool2d(crops.float(), 8).permute(0, 2, 3, 1).cpu().numpy() / 255
    masks = [slic(picture, n_segments=segments, compactness=10.0, start_label=0) for picture in small]
    return torch.from_numpy(np.stack(masks)).long().to(crops.device)
