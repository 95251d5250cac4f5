"""What decides when data are learned: curricula before a run, teachers during it, pacings of epochs."""
