"""What `hybridvla evaluate` is asked for, and what it has already done."""
