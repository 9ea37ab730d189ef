"""What `hybridvla doctor` checks besides the installation: the computer, the running graph, and whether things fit."""
