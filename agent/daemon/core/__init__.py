"""The loop: inbox, state, what follows."""
