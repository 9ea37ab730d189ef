"""The paper's tables from episodes in the simulated rig: what is run, what is compared, what is printed."""
