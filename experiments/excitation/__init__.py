"""Squeeze-and-excitation between convolutions: does it help, and what does it let a network see?"""
