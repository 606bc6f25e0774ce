"""Discriminator rejection sampling (Azadi et al., 2019): rows of rejection.csv.

    python .ci/experiments/rejection.py FACES CHECKPOINT [--n 30000] [--seed 0]

FACES: the folder that the checkpoint (assets/weights/celeba_32.pt, or a run's best.pt) was trained
on, or "drawn". Its discriminator, in eval mode, gives n fakes of its averaged generator logits.
The further a logit is above a quantile of all logits, the more likely the face is accepted. The
accepted faces are scored as in results.py, and so is the same number without rejection.
"""

from pathlib import Path

import torch
from common import Table, lesson, load_networks, parser_of, prepare
from results import scores

from assets.lib.checkpoints import load_checkpoint

QUANTILES = 0.5, 0.8, 0.95  # of the logits; the paper has 0.8 and 0.95


def acceptance(logits, quantile):
    """The probability of accepting each fake, by equation 8 of the paper: (n,) -> (n,)."""
    below = logits - logits.max()
    odds = below - torch.log(1 - torch.exp(below - 1e-6))
    return torch.sigmoid(odds - torch.quantile(odds[:10_000], quantile))


def main(arguments=None):
    parser = parser_of(__doc__, "rejection.csv")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--n", type=int, default=30_000, help="fakes to choose from")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    D, G = load_networks(args.checkpoint)
    size = load_checkpoint(args.checkpoint)["settings"]["image_size"]
    experiment = prepare(args.faces, args.runs, image_size=size, seed=args.seed)
    test, table = experiment.real("test"), Table(args.table)
    row = dict(experiment=f"rejection, {args.checkpoint.name}", data=experiment.data, size=size)
    row |= dict(seed=args.seed, n=2 * len(test))
    if table.has(**row):
        return

    torch.manual_seed(1000 + args.seed)
    faces = lesson.sample_faces(G, args.n, 1000 + args.seed)
    logits = lesson.in_batches(D, faces)[:, 0].cpu()
    kept = {"all": torch.ones(args.n, dtype=torch.bool)}
    for quantile in QUANTILES:
        chosen = torch.rand(args.n) < acceptance(logits, quantile)
        kept[f"accepted, quantile {quantile}"] = chosen
    for subject, chosen in kept.items():
        table.add(**row, subject=subject, measure="kept", value=chosen.float().mean().item())
        best = faces[chosen][: 2 * len(test)]
        for measure, value in scores(best, test, experiment.validation_features).items():
            table.add(**row, subject=subject, measure=measure, value=value)


if __name__ == "__main__":
    main()
