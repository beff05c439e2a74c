"""The process that keeps one box: its name spaces, its file system in memory, one bubblewrap for every command.

The worker starts it with an isolated Python and an empty environment, and talks to it over a socket (standard input).
A keeper is process 1 of its own pid name space, so that nothing of the box survives it, and it ends when the socket
does, however its worker ended. Only the standard library, imported at once: after the uid has been dropped the folder
of this Python may be out of reach.
"""
