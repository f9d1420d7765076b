"""Check, before a run starts, that its steps do not depend on how its work is shared.

Everything is made for the check and dropped after it. Imports recipes and everything below them.

comparison  three steps on all ranks against one process
inspection  a recipe's own code, in one process: which of its lines is at fault
findings    cause, line and remedy; one message of all errors
rehearsal   a few steps in one process, which may claim to be one of several ranks
observer    what lines do in these steps, as findings
localisation  the first line at which micro-batches differ from the whole batch
tracer      the line that is executed, and what it changed
watch       reads by the host, writes to weights and buffers, layers that are faults
contract    what a recipe must have and return
first_start  which code of one's own is still to be checked
"""
