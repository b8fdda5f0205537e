"""The commands of the program, a module each, with `run(arguments)`."""
