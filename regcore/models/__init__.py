"""Folders of trained models, and registration with existing models."""
