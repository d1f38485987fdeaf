"""The network: `build_model` makes one, the other modules hold its parts and the names of released weights."""

from models.hetero_medseg import HeteroMedSeg, build_model

__all__ = ["HeteroMedSeg", "build_model"]
