"""The faults that a run has to survive, brought about for real."""
