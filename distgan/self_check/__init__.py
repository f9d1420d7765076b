"""Check, before a run starts, that its steps do not depend on how its work is shared.

Everything is made for the check and dropped after it. Imports recipes and everything below them.

comparison  three steps on all ranks against one process
"""
