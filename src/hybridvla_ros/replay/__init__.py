"""Recorded bags: read without a master for `hybridvla replay`, or played to the live nodes by `replay.launch`."""
