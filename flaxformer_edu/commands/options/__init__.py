"""What the command line takes: a function per command, which imports what it runs when it is called.

`flaxformer-edu --help` therefore comes at once, without jax.
"""
