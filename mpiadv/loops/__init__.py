"""The trainer's and the attackers' loops, and the parts they are built from."""
