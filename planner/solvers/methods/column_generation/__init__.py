"""Shared routes by column generation."""
