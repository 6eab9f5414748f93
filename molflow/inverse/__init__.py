"""Inverse problems of pictures and of sound, solved at the source of a flow."""
