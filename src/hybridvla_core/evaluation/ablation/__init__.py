"""Tables of the paper from episodes in the simulated rig: what is run, what is told apart, what is printed."""
