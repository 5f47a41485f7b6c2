"""The web page: one self-contained document, and the stream of events that keeps it live."""
