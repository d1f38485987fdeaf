"""The network: `build_model` builds it, `Predictor` uses a trained one.

To read the network top to bottom: hetero_medseg, vssd, ssd, bra, scsa, layers.
"""

from models.hetero_medseg import HeteroMedSeg, build_model
from models.predictor import Predictor

__all__ = ["HeteroMedSeg", "Predictor", "build_model"]
