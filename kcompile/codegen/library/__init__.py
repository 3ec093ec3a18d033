"""What a C library comes with: the archive, a header, a self-test, build files, a page to read, a loader for Python."""
