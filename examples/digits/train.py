"""Trains a small network on scikit-learn's handwritten digits with Chainer: alone, or on MPI ranks with ChainerMN."""
import argparse
import json
import os
import time

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import training
from chainer.training import extensions
from sklearn.datasets import load_digits


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64, help="samples per update, over all ranks")
    parser.add_argument("--units", type=int, default=64, help="width of the hidden layer")
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", default="outputs")
    parser.add_argument("--distributed", action="store_true", help="one of several MPI ranks")
    parser.add_argument("--resume-from", help="a model.npz of an earlier run to begin with")
    return parser.parse_args()


def load_data(seed):
    """1437 digits to train with and 360 to validate with, the same ones on every rank."""
    digits = load_digits()
    images = (digits.data / 16).astype(np.float32)
    labels = digits.target.astype(np.int32)
    data = chainer.datasets.TupleDataset(images, labels)
    return chainer.datasets.split_dataset_random(data, 1437, seed=seed)


def main():
    arguments = parse_arguments()
    np.random.seed(arguments.seed)

    communicator = None
    if arguments.distributed:
        import chainermn

        communicator = chainermn.create_communicator("naive")
    rank, ranks = (communicator.rank, communicator.size) if communicator else (0, 1)

    model = L.Classifier(
        chainer.Sequential(
            L.Linear(64, arguments.units), F.relu, L.Linear(arguments.units, arguments.units), F.relu,
            L.Linear(arguments.units, 10),
        )
    )
    if arguments.resume_from:
        chainer.serializers.load_npz(arguments.resume_from, model)

    optimizer = chainer.optimizers.Adam(alpha=arguments.learning_rate)
    train, validation = load_data(arguments.seed)
    if communicator:
        optimizer = chainermn.create_multi_node_optimizer(optimizer, communicator)
        train = chainermn.scatter_dataset(train, communicator, shuffle=True, seed=arguments.seed)
        validation = chainermn.scatter_dataset(validation, communicator)
    optimizer.setup(model)

    batch_size = max(1, arguments.batch_size // ranks)
    updater = training.StandardUpdater(chainer.iterators.SerialIterator(train, batch_size), optimizer)
    trainer = training.Trainer(updater, (arguments.epochs, "epoch"), out=arguments.output_dir)
    # In one batch: a mean of batches of unequal size would not be the accuracy.
    whole = chainer.iterators.SerialIterator(validation, len(validation), repeat=False, shuffle=False)
    evaluator = extensions.Evaluator(whole, model)
    if communicator:
        evaluator = chainermn.create_multi_node_evaluator(evaluator, communicator)
    trainer.extend(evaluator, name="validation")

    history = []
    if rank == 0:
        log = extensions.LogReport()

        def report(_):
            last = log.log[-1]
            history.append(
                {
                    "epoch": last["epoch"],
                    "loss": last["main/loss"],
                    "accuracy": last["main/accuracy"],
                    "validation_loss": last["validation/main/loss"],
                    "validation_accuracy": last["validation/main/accuracy"],
                }
            )
            print(
                "epoch {epoch}: loss {loss:.4f}, accuracy {accuracy:.4f}, validation loss {validation_loss:.4f}, "
                "validation accuracy {validation_accuracy:.4f}".format(**history[-1]),
                flush=True,
            )

        trainer.extend(log)
        trainer.extend(report, name="report", trigger=(1, "epoch"), priority=training.PRIORITY_READER - 50)
        print("chainer %s, %d rank(s), %d samples on this one" % (chainer.__version__, ranks, len(train)), flush=True)

    began = time.time()
    trainer.run()
    if rank != 0:
        return

    os.makedirs(arguments.output_dir, exist_ok=True)
    chainer.serializers.save_npz(os.path.join(arguments.output_dir, "model.npz"), model)
    metrics = {
        "chainer": chainer.__version__,
        "ranks": ranks,
        "seconds": round(time.time() - began, 3),
        "validation_accuracy": history[-1]["validation_accuracy"],
        "history": history,
    }
    with open(os.path.join(arguments.output_dir, "metrics.json"), "w") as file:
        json.dump(metrics, file, indent=2)
    print("validation accuracy: %.4f" % metrics["validation_accuracy"], flush=True)


if __name__ == "__main__":
    main()
