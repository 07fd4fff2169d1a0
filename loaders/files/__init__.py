"""Reading and writing of files that other processes may read, write, cut or replace."""
