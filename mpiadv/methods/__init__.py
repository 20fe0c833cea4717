"""What is trained, and by which rule: objectives, optimisers and their schedules."""
