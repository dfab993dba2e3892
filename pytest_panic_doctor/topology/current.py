"""Whether a stored diagram is of a point cloud."""
