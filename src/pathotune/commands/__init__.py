"""The commands, one file each.

A command is a module whose file name is its name on the command line. It has
TEXT (what it does, one line), `arguments(parser)` and `run(args, tell)`, which
returns what is printed. It imports heavy libraries inside `run`, so that asking
for help stays quick.
"""
