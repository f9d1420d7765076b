"""Faults as people write them, planted in the template of a recipe. The line at fault says HERE."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import distgan

TEMPLATES = Path(distgan.__file__).parent / "recipes" / "templates"
Edit = Callable[[str], str]


def _line(text: str, needle: str) -> tuple[int, int, str]:
    """Where the first line that holds the needle begins and ends, and its indentation."""
    start = text.rindex("\n", 0, text.index(needle)) + 1
    end = text.index("\n", start) + 1
    return start, end, text[start:end][: len(text[start:end]) - len(text[start:end].lstrip())]


def _indented(code: str, space: str) -> str:
    return "".join(f"{space}{line}\n" for line in textwrap.dedent(code).strip("\n ").splitlines())


def before(needle: str, code: str) -> Edit:
    def edit(text: str) -> str:
        start, _, space = _line(text, needle)
        return text[:start] + _indented(code, space) + text[start:]

    return edit


def after(needle: str, code: str) -> Edit:
    def edit(text: str) -> str:
        start, end, space = _line(text, needle)
        space += "    " * text[start:end].partition("#")[0].rstrip().endswith(":")
        return text[:end] + _indented(code, space) + text[end:]

    return edit


def line(needle: str, code: str) -> Edit:
    """In place of the line that holds the needle."""

    def edit(text: str) -> str:
        start, end, space = _line(text, needle)
        return text[:start] + _indented(code, space) + text[end:]

    return edit


def swap(old: str, new: str) -> Edit:
    """Within a line, which then says HERE, unless another does."""

    def edit(text: str) -> str:
        start, end, _ = _line(text, old)
        changed = text[start:end].replace(old, new, 1)
        if "# HERE" not in text:
            changed = f"{changed.rstrip()}  # HERE\n"
        return text[:start] + changed + text[end:]

    return edit


def template(kind: str) -> str:
    return (TEMPLATES / f"{kind}.py").read_text()


def text_with(*edits: Edit) -> str:
    text = template("image")
    for edit in edits:
        text = edit(text)
    return text


class Fault(NamedTuple):
    name: str
    said: str  # in the cause
    edits: tuple[Edit, ...]


def fault(name: str, said: str, *edits: Edit) -> Fault:
    return Fault(name, said, edits)


# ---- places of the template
FAKE, REAL, RETURN = "fake = self.G.generate", "real = api.to_unit", "return api.d_hinge"
NORM, ELU, MADE_D = "nn.GroupNorm(4, before)", "2, 1)), nn.CELU(0.05)", "G, D = generator(run"
NORMED = "api.spectral_norm(nn.Conv2d(before"
STEP, D_UPDATE, LOG = "d = self.D.update", "d = self.D.update", "return api.step_log"
FROZEN, G_RETURN, SAMPLE = "with self.D.frozen()", "return api.g_hinge", "return api.sample_from"
IMPORTS = before(
    "from torch import nn",
    "import random\nimport numpy as np\nfrom torch.nn import functional as F",
)
RANKS = after("self.run, self.dtype", "self.ranks = ranks")
SCALED = "loss = api.d_hinge(real, fake)"


def own_net(code: str) -> tuple[Edit, ...]:
    """D in a module of the recipe's own, with a buffer and this code in its forward pass."""
    module = f"""
        class Own(nn.Module):
            def __init__(self, net):
                super().__init__()
                self.net = net
                self.register_buffer("seen", torch.zeros(1))

            def forward(self, x):
                {code}
                return self.net(x)


    """
    return before("class Recipe", module), after(MADE_D, "D = Own(D)")


def loss(code: str) -> Edit:
    """D's loss, `loss`, changed by this code."""
    return line(RETURN, f"{SCALED}\n{code}\nreturn loss, {{'real_score': real.mean()}}")


DRAWN = [
    fault("torch.randn", "torch's global", before(FAKE, "z = torch.randn(4, 8)  # HERE")),
    fault(
        "torch.randn in place of noise",
        "torch's global",
        swap('self.noise(micro, "noise/d")', "torch.randn(4, 8, dtype=self.dtype)"),
    ),
    fault(
        "torch.rand_like",
        "torch's global",
        after(REAL, "real = real + 0.01 * torch.rand_like(real)  # HERE"),
    ),
    fault(
        "normal_",
        "torch's global",
        after(REAL, "real = real + torch.empty_like(real).normal_(0, 0.1)  # HERE"),
    ),
    fault("torch.manual_seed", "torch's", before(STEP, "torch.manual_seed(now.step)  # HERE")),
    fault("random.random", "Python's global", IMPORTS, before(FAKE, "a = random.random()  # HERE")),
    fault(
        "random, imported by name",
        "Python's global",
        before("from torch import nn", "from random import random"),
        before(FAKE, "a = random()  # HERE"),
    ),
    fault(
        "random.choice in step",
        "Python's global",
        IMPORTS,
        before(STEP, "flipped = random.choice([0, 1])  # HERE"),
    ),
    fault(
        "np.random.randn", "NumPy's global", IMPORTS, before(FAKE, "a = np.random.randn(3)  # HERE")
    ),
    fault(
        "noise in a forward pass",
        "torch's global",
        *own_net("x = x + torch.randn_like(x) * 0.1  # HERE"),
    ),
    fault(
        "torch.randn in sample",
        "torch's global",
        before(
            SAMPLE,
            """
            with self.G.evaluating_ema() as net:
                return net(torch.randn(len(numbers), self.run.latent).to(self.dtype))  # HERE
            """,
        ),
    ),
]
LAYERS = [
    fault("BatchNorm2d", "nn.BatchNorm2d", swap(NORM, "nn.BatchNorm2d(before)")),
    fault(
        "BatchNorm2d as an alias",
        "nn.BatchNorm2d",
        before("from torch import nn", "from torch.nn import BatchNorm2d as BN"),
        swap(NORM, "BN(before)"),
    ),
    fault(
        "InstanceNorm2d with statistics",
        "track_running_stats",
        swap(NORM, "nn.InstanceNorm2d(before, track_running_stats=True)"),
    ),
    fault(
        "torch's spectral_norm",
        "spectral_norm",
        swap(NORMED, NORMED.replace("api", "nn.utils")),
    ),
    fault(
        "torch's parametrized spectral_norm",
        "spectral_norm",
        before("from torch import nn", "from torch.nn.utils import parametrizations as P"),
        swap(NORMED, NORMED.replace("api", "P")),
    ),
    fault("Dropout", "nn.Dropout", swap(ELU, "2, 1)), nn.Dropout(0.2)")),
    fault("Dropout2d", "nn.Dropout2d", swap(ELU, "2, 1)), nn.Dropout2d(0.2)")),
    fault("RReLU", "nn.RReLU", swap(ELU, "2, 1)), nn.RReLU()")),
    fault(
        "a batch norm of one's own name",
        "nn.Mine",
        before("def generator(", "\nclass Mine(nn.BatchNorm2d):\n    pass"),
        swap(NORM, "Mine(before)"),
    ),
    fault("dropout by function", "dropout", IMPORTS, *own_net("x = F.dropout(x, 0.2)  # HERE")),
]
SHARED = [
    fault("loss * rank", "ranks.rank", RANKS, loss("loss = loss * self.ranks.rank  # HERE")),
    fault(
        "loss / world size",
        "ranks.world_size",
        RANKS,
        loss("loss = loss / self.ranks.world_size  # HERE"),
    ),
    fault(
        "a rank kept by the constructor",
        "ranks.rank",
        after("self.run, self.dtype", "self.scale = 1 + ranks.rank  # HERE"),
        loss("loss = loss * self.scale"),
    ),
    fault(
        "layout.ranks",
        "layout.ranks",
        after("self.run, self.dtype", "self.scale = layout.ranks  # HERE"),
        loss("loss = loss * self.scale"),
    ),
    fault(
        "a rate by world size",
        "ranks.world_size",
        swap("partial(adam, lr=run.d_lr)", "partial(adam, lr=run.d_lr * ranks.world_size)"),
    ),
    fault(
        "is_main in the step",
        "ranks.is_main",
        RANKS,
        loss("if self.ranks.is_main:  # HERE\n    loss = 2 * loss"),
    ),
    fault(
        "torch.distributed.get_rank",
        "torch.distributed.get_rank",
        before("from torch import nn", "import torch.distributed as dist"),
        loss("if dist.is_initialized():\n    loss = loss * dist.get_rank()  # HERE"),
    ),
    fault(
        "a collective",
        "calls torch.distributed.all_reduce",
        before("from torch import nn", "import torch.distributed as dist"),
        loss("if dist.is_initialized():\n    dist.all_reduce(loss.detach())  # HERE"),
    ),
    fault(
        "get_rank, imported",
        "torch.distributed.get_rank",
        before("from torch import nn", "from torch.distributed import get_rank, is_initialized"),
        loss("if is_initialized():\n    loss = loss * get_rank()  # HERE"),
    ),
    fault(
        "RANK",
        "the environment",
        before("from torch import nn", "import os"),
        loss("loss = loss * (1 + int(os.environ.get('RANK', 0)))  # HERE"),
    ),
    fault(
        "noise for this rank's samples",
        "how the batch is shared",
        line(
            "return micro.noise",
            """
            shape = (len(micro.real), self.run.latent)
            noise = api.normal(self.run.seed, purpose, micro.batch_index, shape)  # HERE
            return noise.to(self.dtype)
            """,
        ),
    ),
    fault(
        "a sum in place of a mean",
        "how the batch is shared",
        line(RETURN, "return (1 - real).relu().sum() + (1 + fake).relu().sum(), {}  # HERE"),
    ),
    fault(
        "a buffer of the local batch",
        "the buffer seen of D",
        *own_net("self.seen.lerp_(x.detach().mean().reshape(1), 0.1)  # HERE"),
    ),
    fault(
        "a buffer of the local batch, assigned",
        "the buffer seen of D",
        *own_net("self.seen = 0.9 * self.seen + 0.1 * x.detach().mean().reshape(1)  # HERE"),
    ),
    fault(
        "a buffer of the local batch, by data",
        "the buffer seen of D",
        *own_net("self.seen.data.copy_(x.detach().std().reshape(1))  # HERE"),
    ),
    fault(
        "a buffer of this rank's scores",
        "the buffer seen of D",
        *own_net("pass"),
        after(D_UPDATE, "self.D.module.seen.lerp_(d['real_score'].reshape(1), 0.1)  # HERE"),
    ),
    fault(
        "this rank's loss decides",
        "one rank alone decides",
        after(D_UPDATE, "self.scale = float(d['loss'])  # HERE"),
        line(
            G_RETURN, "return self.scale * api.g_hinge(judge(self.G(self.noise(micro, 'g')))), {}"
        ),
    ),
]
TOGETHER = [
    fault(
        "BatchNorm by function",
        "how the batch is shared",
        IMPORTS,
        *own_net("x = F.batch_norm(x, None, None, training=True)  # HERE"),
    ),
    fault(
        "a deviation over the batch",
        "how the batch is shared",
        *own_net("x = x + x.std(0, keepdim=True)  # HERE"),
    ),
    fault(
        "a deviation over the batch, as StyleGAN's",
        "how the batch is shared",
        *own_net(
            "deviation = x.std(0, correction=0).mean()  # HERE\n                x = x + deviation"
        ),
    ),
]
HIDDEN = [
    fault(
        "a generator without a seed",
        "taken again, gives other numbers",
        IMPORTS,
        after(REAL, "noise = np.random.default_rng().random()\nreal = real + noise  # HERE"),
    ),
    fault(
        "a clock",
        "taken again, gives other numbers",
        before("from torch import nn", "import time"),
        after(REAL, "real = real * (1 + time.perf_counter() % 1)  # HERE"),
    ),
    fault(
        "a count of steps",
        "the value of count is kept between steps",
        after("self.run, self.dtype", "self.count = 0"),
        before(STEP, "self.count += 1  # HERE"),
        loss("loss = loss * (1 + self.count)"),
    ),
    fault(
        "an average of losses in an attribute",
        "the value of average is kept between steps",
        after("self.run, self.dtype", "self.average = 0.0"),
        line(
            LOG,
            """
            g = self.G.update(self.g_loss, batches[0], now.epoch)
            self.average = 0.9 * self.average + 0.1 * g["grad_norm"]  # HERE
            return api.step_log(d=d, g=g)
            """,
        ),
        loss("loss = loss * (1 + self.average)"),
    ),
    fault(
        "a global count of steps",
        "the value of COUNT is kept between steps",
        before("def generator(", "COUNT = 0"),
        before(STEP, "global COUNT\nCOUNT += 1  # HERE"),
        loss("loss = loss * (1 + COUNT)"),
    ),
    fault(
        "a count in a network",
        "the value of calls is kept between steps",
        *own_net("x = x * (1 + self.calls)"),
        after("super().__init__()", "self.calls = 0"),
        before(STEP, "self.D.module.calls += 1  # HERE"),
    ),
]
BY_HAND = [
    fault(
        "an optimizer in a loss",
        "an optimizer of D by hand",
        after(MADE_D, "self.adam = adam(D.parameters(), lr=1e-3)"),
        before(RETURN, "self.adam.step()  # HERE"),
    ),
    fault(
        "an optimizer in the step",
        "an optimizer of D by hand",
        after(MADE_D, "self.adam = adam(D.parameters(), lr=1e-3)"),
        after(D_UPDATE, "self.adam.step()  # HERE"),
    ),
    fault(
        "a backward pass in the step",
        "gradients by hand",
        before(
            STEP,
            """
            real = api.to_unit(batches[0][0].real, self.dtype)
            self.D.module(real).mean().backward()  # HERE
            """,
        ),
    ),
    fault(
        "weights clamped by data",
        "outside Player.update",
        before(
            STEP,
            """
            for weight in self.D.module.parameters():
                weight.data.clamp_(-0.1, 0.1)  # HERE
            """,
        ),
    ),
    fault(
        "weights clamped without gradient",
        "outside Player.update",
        before(
            STEP,
            """
            with torch.no_grad():
                for weight in self.D.module.parameters():
                    weight.clamp_(-0.1, 0.1)  # HERE
            """,
        ),
    ),
    fault(
        "weights assigned",
        "outside Player.update",
        before(
            STEP,
            """
            for weight in self.G.module.parameters():
                weight.data = weight.data * 0.99  # HERE
            """,
        ),
    ),
    fault(
        "an optimizer beside the players",
        "an optimizer of self.extra by hand",
        after(MADE_D, "self.extra = nn.Linear(2, 2)\nself.adam = adam(self.extra.parameters())"),
        before(STEP, "self.adam.step()  # HERE"),
    ),
]
FORGOTTEN = [
    fault("G(...) for D", "calls G with", swap("self.G.generate(", "self.G(")),
    fault("G.module(...) for D", "calls G with", swap("self.G.generate(", "self.G.module(")),
    fault(
        "G.forward_local(...) for D",
        "calls G with",
        swap("self.G.generate(", "self.G.forward_local("),
    ),
    fault(
        "G(...), then detached",
        "calls G with",
        line(FAKE, 'fake = self.G(self.noise(micro, "noise/d")).detach()  # HERE'),
    ),
    fault(
        "G(...) in the step",
        "calls G with",
        before(STEP, 'self.fake = self.G(self.noise(batches[0][0], "noise/d"))  # HERE'),
    ),
    fault(
        "D(...) for G",
        "calls D with",
        line(FROZEN, "if True:"),
        line(G_RETURN, 'return api.g_hinge(self.D(self.G(self.noise(micro, "g")))), {}  # HERE'),
    ),
    fault(
        "D.module(...) for G",
        "calls D with",
        line(FROZEN, "if True:"),
        line(
            G_RETURN,
            'return api.g_hinge(self.D.module(self.G(self.noise(micro, "g")))), {}  # HERE',
        ),
    ),
]
ERRORS = DRAWN + LAYERS + SHARED + TOGETHER + HIDDEN + BY_HAND + FORGOTTEN
NOTES = [
    fault(
        "batch norm of groups of 1",
        "GroupBatchNorm2d with groups of 1, the default, is instance norm while it trains",
        swap(NORM, "norm(before)"),
        swap("def generator(latent, widths, channels)", "def generator(latent, widths, norm)"),
        before("layers = [nn.Unflatten", "channels = 1"),
        before(MADE_D, "norm = partial(api.GroupBatchNorm2d, group=layout.group, ranks=ranks)"),
        swap("generator(run.latent, widths, channels)", "generator(run.latent, widths, norm)"),
    ),
] + [
    fault(name, name, before(RETURN, f"{code}  # HERE"))
    for name, code in {
        ".item()": "score = real.mean().item()",
        "float(tensor)": "score = float(real.detach().mean())",
        "bool(tensor)": "if real.mean() > 100: pass",
        ".cpu()": "score = real.detach().cpu()",
        '.to("cpu")': "score = real.detach().to('cpu')",
        ".tolist()": "score = real.tolist()",
        ".numpy()": "score = real.detach().numpy()",
        "a formatted tensor": "score = f'{real.mean():.3f}'",
    }.items()
]

# ---- bad recipes
MAKE, DRAW = "def __init__(self, run, ranks, layout, shape):", "def sample("
RETURNS = "def step(self, batches, now):"
PLAYERS = 'self.players = {"G": self.G, "D": self.D}'


def here(needle: str) -> Edit:
    return swap(needle, needle)


BAD = [
    fault("raises in the constructor", "AttributeError", line(MADE_D, "D = nn.No(3)  # HERE")),
    fault("raises in the step", "AttributeError", before(STEP, "batches.nothing  # HERE")),
    fault("raises in a loss", "RuntimeError", before(RETURN, "real @ real.new_ones(3)  # HERE")),
    fault("raises in a network", "ZeroDivisionError", *own_net("1 / 0  # HERE")),
    fault(
        "raises in torch", "RuntimeError", line(FAKE, "fake = self.G.generate(micro.real)  # HERE")
    ),
    fault(
        "raises with micro-batches",
        "with 2 micro-batches of 2: RuntimeError",
        after(REAL, "real = real.view(4, 1, 64, 64)  # HERE"),
    ),
    fault("raises for its arguments", "TypeError", swap(MAKE, "def __init__(self, run):")),
    fault("no players", "players are nothing", here(MAKE), line(PLAYERS, "self.nets = {}")),
    fault(
        "networks as players",
        "players are a dict",
        here(MAKE),
        line(PLAYERS, 'self.players = {"G": G, "D": D}'),
    ),
    fault(
        "a player that is not saved",
        "self.D is not in self.players",
        here(MAKE),
        line(PLAYERS, 'self.players = {"G": self.G}'),
    ),
    fault("nothing returned", "step returns nothing", here(RETURNS), before(LOG, "return None")),
    fault(
        "floats returned",
        "step returns a float as 'd/loss'",
        here(RETURNS),
        before(LOG, "return {'d/loss': 1.0}"),
    ),
    fault("no player named", "which has no player", here(RETURNS), before(LOG, "return d")),
    fault(
        "no loss returned",
        "step returns no loss",
        here(RETURNS),
        before(LOG, "return {'d/lr': d['lr']}"),
    ),
    fault(
        "a loss alone",
        "function returns a scalar tensor",
        line(RETURN, "return real.mean()  # HERE"),
    ),
    fault("a loss of nothing", "function returns nothing", line(RETURN, "real.mean()  # HERE")),
    fault(
        "a loss of each sample",
        "the loss is a tensor of shape [4]",
        line(RETURN, "return (1 - real).relu() + fake.relu(), {}  # HERE"),
    ),
    fault(
        "a loss without gradient",
        "the loss has no gradient",
        line(RETURN, "return real.mean().detach(), {}  # HERE"),
    ),
    fault(
        "a number that is no scalar",
        "'score' beside the loss is a tensor of shape",
        line(RETURN, "return real.mean(), {'score': real}  # HERE"),
    ),
    fault(
        "no images", "sample returns a tuple", here(DRAW), before(SAMPLE, "return numbers, self.G")
    ),
    fault(
        "sample with other parameters",
        "sample cannot be called with an array of numbers alone",
        line("def sample(", "def sample(self, numbers, classes, purpose='noise/sample'):  # HERE"),
    ),
    fault(
        "images of another size",
        "sample returns a tensor of shape [2, 1, 32, 32]",
        here(DRAW),
        before(SAMPLE, "return torch.zeros(len(numbers), 1, 32, 32)"),
    ),
    fault(
        "images as bytes",
        "sample returns torch.uint8",
        here(DRAW),
        before(SAMPLE, "return torch.zeros(len(numbers), 1, 64, 64, dtype=torch.uint8)"),
    ),
    fault(
        "images that depend on each other",
        "different samples for number 1",
        here(DRAW),
        before(SAMPLE, "return torch.full((len(numbers), 1, 64, 64), len(numbers) / 2.0)"),
    ),
]


# ---- what is right, however unusual
def right(name: str, *edits: Edit) -> Fault:
    return Fault(name, "", edits)


def method(code: str) -> Edit:
    return before("def g_loss(self, micro):", code)


RIGHT = [
    right(
        "batch norm of groups",
        swap("def generator(latent, widths, channels)", "def generator(latent, widths, norm)"),
        before("layers = [nn.Unflatten", "channels = 1"),
        swap(NORM, "norm(before)"),
        before(MADE_D, "norm = partial(api.GroupBatchNorm2d, group=2, ranks=ranks)"),
        swap("generator(run.latent, widths, channels)", "generator(run.latent, widths, norm)"),
        after("width: int", "group = property(lambda self: 2)"),
    ),
    right(
        "a gradient penalty",
        after(
            "real, fake = self.D",
            """
            pair = [api.to_unit(micro.real, self.dtype), self.G.generate(self.noise(micro, "p"))]
            share = micro.uniform(self.run.seed, "penalty", 1).to(self.dtype)
            penalty = api.gradient_penalty(self.D.forward_local, *pair, share)
            """,
        ),
        line(RETURN, "return api.d_hinge(real, fake) + 10 * penalty, {'penalty': penalty}"),
    ),
    right(
        "R1 every other step, by autograd",
        before(D_UPDATE, "self.now = now"),
        line(
            RETURN,
            """
            loss = api.d_hinge(real, fake)
            if self.now.step % 2 == 0:
                x = api.to_unit(micro.real, self.dtype).requires_grad_()
                (slope,) = torch.autograd.grad(self.D.forward_local(x).sum(), x, create_graph=True)
                loss = loss + slope.square().flatten(1).sum(1).mean()
            return loss, {}
            """,
        ),
    ),
    right(
        "several updates of D, each on its batch",
        after("width: int", "batches_per_step = property(lambda self: 3)"),
        line(
            D_UPDATE,
            "d = api.merge_logs([self.D.update(self.d_loss, b, now.epoch) for b in batches])",
        ),
    ),
    right(
        "two discriminators",
        after(
            MADE_D,
            """
            E = discriminator(widths, channels)
            self.E = api.Player(ranks, E, partial(torch.optim.RMSprop, lr=1e-4), clip=1.0)
            """,
        ),
        swap('"D": self.D}', '"D": self.D, "E": self.E}'),
        after(D_UPDATE, "e = self.E.update(partial(self.loss_of, self.E), batches[0], now.epoch)"),
        swap("api.step_log(d=d, ", "api.step_log(d=d, e=e, "),
        method(
            """
            def loss_of(self, player, micro):
                fake = self.G.generate(self.noise(micro, "noise/e"))
                both = player(torch.cat([api.to_unit(micro.real, self.dtype), fake]))
                return api.d_vanilla(*both.chunk(2), 1.0, 0.0), {}
            """
        ),
        line(FROZEN, "with self.D.frozen() as judge, self.E.frozen() as other:"),
        line(
            G_RETURN,
            """
            fake = self.G(self.noise(micro, "noise/g"))
            return api.g_hinge(judge(fake)) + api.g_vanilla(other(fake)), {}
            """,
        ),
    ),
    right(
        "dropout by address, and augmentation",
        after(
            REAL,
            """
            seed, where = self.run.seed, micro.positions
            real = real * (micro.uniform(seed, "dropout", 1)[:, :, None, None] > 0.3)
            real = api.diffaugment(real, ("color", "translation", "cutout"), seed, "a", where)
            real = api.flip(real, seed, micro.address, 0.5, 0.0)
            """,
        ),
    ),
    right(
        "a buffer of constants, an attribute",
        *own_net("self.last = x.shape; self.seen.fill_(3.0); x = x.where(x > 0, 0.5 * x)"),
    ),
    right(
        "a frozen network beside the players",
        after(
            MADE_D,
            """
            eyes = nn.Sequential(nn.BatchNorm2d(channels), nn.Dropout(0.5)).to(self.dtype)
            self.eyes = eyes.eval().requires_grad_(False)
            """,
        ),
        after(REAL, "real = real + 0.1 * self.eyes(real)"),
    ),
    right(
        "noise for all ranks, cut by hand",
        RANKS,
        line(
            FAKE,
            """
            share = self.ranks.world_size * self.ranks.machine.accumulation
            shape = (len(micro.real) * share, self.run.latent)
            assert shape[0] == self.run.batch
            z = api.normal(self.run.seed, "noise/d", micro.batch_index, shape)[micro.rows]
            fake = self.G.generate(z.to(self.dtype))
            """,
        ),
    ),
    right(
        "SGD with momentum, no average, a schedule",
        line("adam = partial", "adam = partial(torch.optim.SGD, momentum=0.5)"),
        line(
            "self.G = api.Player",
            """
            falling = partial(api.step_decay, every=1, factor=0.5)
            self.G = api.Player(ranks, G, partial(adam, lr=1e-3), schedule=falling)
            """,
        ),
    ),
    right(
        "weights clamped by the player",
        line(
            "self.D = api.Player",
            "self.D = api.Player(ranks, D, partial(adam, lr=1e-3), clamp=0.01, clip=1.0)",
        ),
        line(RETURN, "return api.d_wasserstein(real, fake), {}"),
    ),
    right(
        "weights set by the constructor",
        after(
            MADE_D,
            """
            for module in G:
                if isinstance(module, nn.Conv2d):
                    nn.init.orthogonal_(module.weight)
            with torch.no_grad():
                G[1].weight.mul_(0.5)
            """,
        ),
    ),
    right(
        "caches of constants, a second copy of D",
        before("from torch import nn", "import copy"),
        before("class Recipe", "ONES = {}\n\n"),
        after(MADE_D, "self.first = copy.deepcopy(D).to(self.dtype).requires_grad_(False)"),
        after(
            REAL,
            """
            if not hasattr(self, "grid"):
                self.grid = ONES.setdefault("grid", torch.ones(1, dtype=self.dtype))
            real = real * self.grid + 0 * self.first(real).mean()
            """,
        ),
    ),
    right(
        "activations computed again",
        before("from torch import nn", "from torch.utils.checkpoint import checkpoint"),
        line(
            "real, fake = self.D",
            """
            both = torch.cat([real, fake])
            real, fake = checkpoint(self.D, both, use_reentrant=False).chunk(2)
            """,
        ),
    ),
    right(
        "a generator frozen in its own update",
        line(
            G_RETURN,
            """
            fake = self.G(self.noise(micro, "noise/g"))
            with self.G.frozen() as again:
                other = again(self.noise(micro, "noise/h"))
            return api.g_hinge(judge(fake)) + (fake - other).abs().mean(), {}
            """,
        ),
    ),
]
