"""What tasks share: shapes, phrases, looks, and the moves of their experts."""
