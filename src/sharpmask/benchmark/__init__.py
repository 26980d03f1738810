"""How fast this machine finds the objects of a photo, stage by stage, beside what it could do at best."""
