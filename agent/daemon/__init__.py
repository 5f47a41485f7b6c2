"""The loop that connects the rooms, and what answers for it."""
