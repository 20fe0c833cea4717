"""What decides which bits are trained, and who crafts what when: pure, without MPI and torch."""
