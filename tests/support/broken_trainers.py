"""Faults for `processes.broken`, as text put ahead of the trainer."""

NAN_AT = """
    from distgan.data import transforms
    usual, calls = transforms.to_unit, []
    def to_unit(images, *dtype):
        calls.append(1)
        return usual(images, *dtype).mul_(float("nan") if {} else 1)
    import os
    transforms.to_unit = to_unit
"""

# Rank 1's images are not finite from the sixth step on, for as long as {}.
FROM_STEP_6 = """
    import os
    from distgan.data import transforms
    from distgan.recipes import sagan
    usual, step, bad = transforms.to_unit, sagan.Recipe.step, [False]
    def told(self, batches, now):
        bad[0] = now.step >= 5 and os.environ.get("RANK", "1") == "1" and {}
        return step(self, batches, now)
    sagan.Recipe.step = told
    def to_unit(images, *dtype):
        return usual(images, *dtype).mul_(float("nan") if bad[0] else 1)
    transforms.to_unit = to_unit
"""

# Steps 17 to 24 are not finite, until a rollback has halved the rates.
NAN_UNTIL_HALVED = """
    import dataclasses
    from distgan.recipes import sagan
    def step(self, batches, now, usual=sagan.Recipe.step):
        if 16 <= now.step < 24 and self.run.g_lr == 1e-3:
            batches = [
                [dataclasses.replace(m, real=m.real.float() * float("nan")) for m in batch]
                for batch in batches
            ]
        return usual(self, batches, now)
    sagan.Recipe.step = step
"""
