"""Write, index and read tar shards.

Equal samples give equal bytes. A shard is finished when its index exists. A reader returns exactly
the bytes that were written, or raises DataError with shard, member and bytes. Imports distgan.core,
distgan.config.image_sizes and shards.codecs.

index         the index beside a shard: offset, size and crc32 of every member
manifest      manifest.json of a split and the parts of dataset.json
tar_members   read the members of a tar from any program; refuse unsafe and damaged ones
writer        write a shard and its index
reader        ShardSet: read samples of a split in any order
flower_species  names of the labels of flowers102
labels        the columns of labels, and the label of each sample
label_files   labels of a folder's images, or of a table's rows: from folders, CSV or JSON
sample_spec   validate the entry `sample` of dataset.json, and name the next commands
"""
