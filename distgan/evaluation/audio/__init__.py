"""Measures of repaired sound, computed by all ranks, with the same result at any number of them.

May import what the package above it may.

evaluator    measures of clips, collective
summary      means, intervals and distances of measured clips
sets         validation clips, folders of sound files
embeddings   speech models of torchaudio for a Fréchet audio distance
ge2e         a speaker embedding for another
dnsmos       opinions without a reference
"""
