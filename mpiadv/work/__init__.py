"""What the loops do with torch: craft, learn, and round what travels."""
