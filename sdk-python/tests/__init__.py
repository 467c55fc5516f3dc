import os
import sys

# The tests import `support` from beside them, be they run from here or from the folder above.
sys.path.insert(0, os.path.dirname(__file__))
