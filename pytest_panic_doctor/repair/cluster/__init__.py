"""Repairs whose diagrams are computed on a Ray cluster."""
