"""Copies an SQLite store that may be in use: `copy_sqlite.py FROM TO`."""

import sqlite3
import sys
from contextlib import closing

with closing(sqlite3.connect(sys.argv[1])) as source, closing(sqlite3.connect(sys.argv[2])) as copy:
    source.backup(copy)
