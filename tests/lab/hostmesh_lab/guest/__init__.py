"""What runs inside a machine of the lab, by file name: it imports the standard library only."""
