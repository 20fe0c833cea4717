"""The programs behind the commands: each from its command line to its exit code. No logic."""
