"""The agent's state, the events that change it, and the inbox that brings them."""
