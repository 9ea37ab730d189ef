"""What `hybridvla doctor` looks at beside the installation: the computer, the running graph, and whether things fit."""
