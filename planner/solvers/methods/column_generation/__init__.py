"""Shared routes by column generation: a Newton master for the goal ``delay``, a linear master for the others."""
