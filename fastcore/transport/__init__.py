"""Streams, as Tornado has them, made a transport of messages."""
