"""The search for a quantised file that holds its bound, and the gate that decides."""
