"""Update one network on the mean loss over the global batch, alike on any number of ranks.

The result of an update depends neither on the number of ranks nor on that of micro-batches, to
rounding. Imports core, config, distributed, data and nn.

player          a network with its optimizer, schedule, clipping and moving average
strength        the strength of adaptive augmentation, controlled by what D says of reals
ddp             the engine of one process or of DDP, and how it calls a network
deepspeed_zero  the engine of DeepSpeed's ZeRO stages 0, 1 and 2; the only importer of deepspeed
factory         the engine that a run was started with
guarded_step    an optimizer step that is skipped where the gradient is not finite
widen           start from the checkpoint of a narrower network
"""
