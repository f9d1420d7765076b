"""One file for each kind of source; the file name is the name on the command line."""
