"""An image in, ranked class-agnostic object masks out."""

from sharpmask.proposals.proposer import Proposer
from sharpmask.proposals.result import Proposals

__all__ = ["Proposals", "Proposer"]
