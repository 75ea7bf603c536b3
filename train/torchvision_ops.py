"""Make a CUDA-built torchvision importable beside a CPU-built torch."""

from __future__ import annotations

import importlib
import sys
from typing import Any

_KEPT_ALIVE: list[Any] = []  # the registration lives only as long as its torch.library.Library


def make_torchvision_importable() -> None:
    """Register the two operator schemas that a CUDA-only torchvision build expects, when its plain import fails.

    timm, open_clip and transformers import torchvision; there is no CPU wheel of it for every torch release, and the
    CUDA wheel stops at import with "operator torchvision::nms does not exist". Only the schemas are declared: calling
    the operators still fails, and nothing here calls them.
    """
    if _KEPT_ALIVE:
        return
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return
    import torch

    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT_ALIVE.append(library)
    importlib.import_module("torchvision")
