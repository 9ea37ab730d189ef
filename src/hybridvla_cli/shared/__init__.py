"""Code that the verbs share."""
