"""What the shell's commands do, a module for each kind; `molflow.cli` puts them together."""
