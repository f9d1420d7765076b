"""The processes of a run: who they are, what they exchange, how they are started.

The only package that imports accelerate and torch.distributed. Everything here also works in one
process, and then does nothing. Imports core and config.

map_over_ranks  distribute independent pieces of work over the ranks
ranks           collectives, decisions of all ranks, work of rank 0 alone
process_group   join and leave the group of processes, also several times in one program
claimed_ranks   one process that tells a recipe's own code it is one of several
environment     the number of processes and the engine that a launcher left in the environment
deepspeed_json  the keys of a DeepSpeed JSON file that may be set
job_end         how long this job may still run
accelerate_launch  `accelerate launch` that ends as its ranks do, without a traceback of its own
launch_line     the accelerate command line that starts a run
"""
