"""What runs inside a machine of the lab, by file name: standard library only, no import of the rest."""
