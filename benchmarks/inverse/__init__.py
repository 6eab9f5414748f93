"""Inverse problems of pictures and of sound: what is measured of what, the figures, the methods compared."""
