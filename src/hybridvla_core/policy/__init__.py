"""From observation to action. Import the submodule you need; this package imports nothing heavy."""
