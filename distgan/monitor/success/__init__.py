"""Was the run a success? Criteria, and one sentence of verdict: pure functions of the journal, the
settings and the warnings of a run. No torch.

criterion       `Criterion`: what is required and what was measured; its states
game            the game between D and G: outputs and losses of D, the GAN loss
samples         samples from noise: variety, coverage, score beside its floor, copies
pairs           repaired signals: L1, the gap, what a trivial output scores
criteria        which of them apply to a run, by the keys of its journal
verdict         `judge`: the verdict, the same for report, tables, status, terminal and sweep
"""
