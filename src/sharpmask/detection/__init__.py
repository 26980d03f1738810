"""Named objects with masks: Fast R-CNN and MultiPathNet on top of proposals."""
