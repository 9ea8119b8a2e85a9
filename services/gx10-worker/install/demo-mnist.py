r"""Trains a small network on handwritten digits: a first job for a GPU box.

In a job, on an image with PyTorch:

    gx10 submit pytorch/pytorch:latest -- sh -c \
        'python3 -c "import os, urllib.request as r; exec(r.urlopen(os.environ[\"NIMBUS_GPU_API\"] + \"/scripts/demo-mnist.py\").read())"'

Digits come from torchvision (with the network) or from /datasets/mnist; without both, made-up ones
are used, so that the job shows the GPU at work anyway. The trained model is left among the artifacts.
"""

import json
import os
import pathlib
import time

import torch
from torch import nn

EPOCHS = int(os.environ.get("EPOCHS", "3"))
BATCH = 256


def digits(device):
    """Images of 28×28 and their digits, for training and for testing, and where they are from."""
    try:
        from torchvision import datasets

        root = "/datasets/mnist" if os.access("/datasets/mnist", os.W_OK) else "/tmp/mnist"
        parts = []
        for train in (True, False):
            data = datasets.MNIST(root, train=train, download=True)
            parts.append((data.data.float().div(255).unsqueeze(1).to(device), data.targets.to(device)))
        return parts, "MNIST"
    except Exception as error:
        print(f"no MNIST here ({error}); training on made-up digits", flush=True)
    torch.manual_seed(1)
    shapes = torch.rand(10, 1, 28, 28)
    parts = []
    for count in (20_000, 2_000):
        labels = torch.randint(0, 10, (count,))
        images = shapes[labels] + 0.3 * torch.randn(count, 1, 28, 28)
        parts.append((images.to(device), labels.to(device)))
    return parts, "made up"


def network():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10),
    )


def main():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name(0) if device == "cuda" else "the processor"
    print(f"training on {name}, PyTorch {torch.__version__}", flush=True)
    (train, test), source = digits(device)
    model = network().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    started = time.monotonic()
    accuracy = 0.0
    for epoch in range(1, EPOCHS + 1):
        model.train()
        order = torch.randperm(len(train[1]), device=device)
        total = 0.0
        for chosen in order.split(BATCH):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(train[0][chosen]), train[1][chosen])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(chosen)
        model.eval()
        with torch.no_grad():
            right = sum((model(x).argmax(1) == y).sum().item() for x, y in zip(test[0].split(1024), test[1].split(1024)))
        accuracy = right / len(test[1])
        print(f"epoch {epoch}/{EPOCHS}: loss {total / len(train[1]):.4f}, accuracy {accuracy:.2%}", flush=True)

    kept = pathlib.Path(os.environ.get("NIMBUS_ARTIFACTS", "."))
    torch.save(model.state_dict(), kept / "mnist.pt")
    summary = {"accuracy": accuracy, "data": source, "device": name, "seconds": round(time.monotonic() - started, 1)}
    (kept / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"done: {accuracy:.2%} in {summary['seconds']} s; the model is in the artifacts", flush=True)


main()
