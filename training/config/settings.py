"""Settings of a training run: types, defaults, and the help printed by run.py --help.

Each field's comment is its help. Presets are YAML files next to this one; a method's own settings
are defined with the method.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from patchmill.loaders.common.settings import Bounds
from patchmill.loaders.decode.bad_image import MAX_PIXELS, MOST_PIXELS

Count = Annotated[int, Bounds(least=1)]
Width = Annotated[int, Bounds(least=2)]
Pixels = Annotated[int, Bounds(1, MOST_PIXELS)]
Whole = Annotated[int, Bounds(least=0)]
Amount = Annotated[float, Bounds(least=0)]
Positive = Annotated[float, Bounds(above=0)]
Share = Annotated[float, Bounds(0, 1)]
Auto = Literal["auto"]


@dataclass
class Data:
    name: str = "scenes"  # the data's name in reports
    train: str = ""  # a folder, shards, a .beton, or made-up scenes, as loaders.build takes them
    test: str | None = None  # the same, for evaluation
    bank: str | None = None  # labelled images for evaluation, where train has no labels
    root: str | None = None  # the folder that train, test and bank are in
    masks: str | None = None  # the mask file, if not the one next to the data
    backgrounds: str | None = None  # a folder of images to paste on, instead of the data's own
    steps: Count | None = None  # batches in an epoch, for streamed shards alone
    cache: str | None = None  # decoded images to keep: ram:32GB, disk:FOLDER:200GB, device:20GB
    max_pixels: Pixels = MAX_PIXELS  # of an image; a larger one is a bad sample


@dataclass
class Model:
    name: str = "resnet50"  # timm's name of the backbone
    stem: Literal["auto", "imagenet", "cifar"] = "auto"  # of ResNets; auto: cifar up to 64 pixels
    drop_path: Share = 0.0  # stochastic depth, if the backbone supports it
    patch: Count | Literal["auto"] = "auto"  # of ViTs: side of a patch; auto: 4 up to 64 pixels
    depth: Count | None = None  # of ViTs: number of blocks, instead of the model's
    pool: Literal["token", "mean"] = "token"  # of ViTs: h is the class token, or the others' mean
    positions: Literal["timm", "dino"] = "timm"  # of ViTs: resizing of position embeddings


@dataclass
class Optim:
    name: Literal["sgd", "adamw", "lars"] = "sgd"  # the optimiser
    lr: Positive = 0.03  # learning rate at its peak
    scaled: bool = False  # lr is for a batch of 256, and scales with the global batch
    momentum: Share = 0.9  # of sgd and lars
    nesterov: bool = False  # of sgd and lars
    weight_decay: Amount = 1e-4  # the optimiser's weight decay
    exclude: bool = True  # exclude biases and norms from weight decay and lars scaling
    weight_decay_end: Amount | None = None  # final weight decay of a cosine schedule
    betas: tuple[Share, Share] = (0.9, 0.999)  # of adamw
    eta: Positive = 0.02  # of lars: trust coefficient
    lars: Literal["wrapper", "vicreg"] = "wrapper"  # variant of lars
    lars_clip: bool = True  # of the wrapper variant: scale gradients down, never up
    schedule: Literal["cosine", "steps", "constant", "poly"] = "cosine"  # of the learning rate
    milestones: tuple[Positive, ...] = (120.0, 160.0)  # of steps: epochs at which lr falls
    gamma: Positive = 0.1  # of steps: factor that lr falls by
    per_epoch: bool = False  # after the warm-up lr changes between epochs only
    warmup: Amount = 0.0  # epochs of linear warm-up from 0
    warmup_start: Share | None = None  # warm up from this share of the peak, between epochs only
    warmup_end: bool = False  # the last step of the warm-up has the peak rate, not the next
    final: Share = 0.0  # of cosine: final lr, as a fraction of its peak
    min_lr: Amount | None = None  # of cosine: final lr itself, instead of final
    grad_clip: Positive | None = None  # maximum norm of the whole gradient
    clip_each: Positive | None = None  # maximum norm of each parameter's gradient


@dataclass
class Train:
    epochs: Count = 200  # epochs to train for
    batch_size: Count = 256  # images in a step, over all ranks
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 on GPUs that have it
    compile: bool = False  # torch.compile
    channels_last: bool | Literal["auto"] = "auto"  # memory format; auto: on GPUs
    accumulate: Count = 1  # micro-batches of a rank in each step, to save memory
    sync_bn: bool = False  # batch norm over all ranks
    parallel: Literal["ddp", "fsdp"] = "ddp"  # fsdp: shards large backbones
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    pipeline: str = "auto"  # threads, dali or ffcv, as loaders.build takes it
    workers: Count | Auto | None = None  # loading threads of a rank; by default its share of cores
    prefetch: Count | Auto = 2  # batches prepared ahead; auto, for both: what makes loading faster
    log_every: Count = 10  # steps between rows of log.csv
    checkpoint_minutes: Positive = 10.0  # between checkpoints, besides one at the end of each epoch
    checkpoint_every: Count | None = None  # steps between checkpoints, instead of minutes
    keep: Count = 3  # number of last checkpoints to keep, besides the best

    def threads(self, share: int) -> int:
        """`workers` where it is a number, else this share of the cores."""
        return self.workers if isinstance(self.workers, int) else share


@dataclass
class Evaluate:
    knn_every: Whole = 1  # epochs between kNN evaluations; 0 for never
    k: Count = 20  # neighbours that vote
    temperature: Positive = 0.07  # of their votes
    space: Literal["h", "z"] = "h"  # the backbone's h, or the projector's z
    encoder: Literal["auto", "student", "teacher"] = "auto"  # networks; auto: the method's choice
    images: Count = 50_000  # limit on the training images in the bank
    view: str = "eval(size=224, short_side=256)"  # the recipe of the views that are evaluated
    batch_size: Count = 256  # images at a time, on each rank
    stop_at: Share | None = None  # end the run at the first evaluation with this accuracy
    stop_metric: Literal["knn", "linear_online"] = "knn"  # the accuracy that stop_at is of


@dataclass
class Log:
    tensorboard: bool = True  # event files in the run's folder
    wandb: str | None = None  # the Weights & Biases project to log to


@dataclass
class Config:
    method_name: str = "dilo"  # the chosen method
    method: Any = None  # its own settings
    scale: str = "paper"  # the chosen preset
    size: Annotated[int, Bounds(16, 2048)] = 224  # side of a view in pixels
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)
    log: Log = field(default_factory=Log)
    name: str = ""  # of the run's folder; by default METHOD-DATA-SCALE
    out: str = "runs"  # the folder of all runs
    seed: Annotated[int, Bounds(0, 2**63 - 1)] = 0  # of views, order and weights
    resume: str = "auto"  # auto, never, or a checkpoint to resume from
