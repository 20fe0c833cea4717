"""Jobs of the real loops and messages in which waits stand for the work of devices."""
