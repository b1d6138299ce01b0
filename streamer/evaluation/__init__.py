"""Measuring: what recognition costs on this machine."""
