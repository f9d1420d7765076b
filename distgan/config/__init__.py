"""A run as settings: keys, checks, identity, and how its global batch is shared.

Promises that every setting is checked before any work starts, that one message lists every fault,
and that a run keeps its identity across releases. Imports core and monitor; no torch.

settings       `Run`, the base of every recipe's settings
image_network  the network that images are scored through: EfficientNet-Lite0 where installed
sections       the base of sections; `Evaluate` and `Machine`
identity       new settings and changed defaults that keep the identities of earlier runs
judge          the number of the validation that finds the best checkpoint
introspection  defaults, help texts and flat keys of settings
loading        run files and `key=value` words -> checked settings
data_name      a folder of shards, or a Dataset that is named by code
image_sizes    the image sizes that the image recipes train on
batch_layout   global batch -> ranks x accumulation x per-rank batch
"""
