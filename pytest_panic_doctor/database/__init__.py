"""Descriptions of the stores of trajectories that the doctor knows, and the encodings of their values."""
