"""The network: `build_model` builds it. To read it top to bottom: hetero_medseg, vssd, ssd, bra, scsa, layers, head."""

from models.hetero_medseg import HeteroMedSeg, build_model

__all__ = ["HeteroMedSeg", "build_model"]
