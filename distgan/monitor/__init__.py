"""Judge the numbers of a run: pure functions of its journal and its settings.

Imports distgan.core and NumPy; no torch. The same journal and settings always give the same
findings and decisions, so a run that was continued decides as one that never stopped.

moves           rule names; a move of a tuning guide: how one setting changes
guides          the tuning guides as data: by rule, the moves to make
settings        `Watch`, the section `watch` of the settings: thresholds and responses
results         `Finding` of a rule, `HealthSignal`
journal         read journal.jsonl; series, medians and means of its keys
rules_game      rules of the game between D and G
rules_outcome   rules of validation, score, overfitting and diversity
signals         the table of health signals
decisions       evaluate all rules, name the guide's next moves, decide what to do
success         criteria and verdict: was the run a success?
interventions   what the monitor did to a run, from its events
"""
