"""Builds the demo database: small, seeded, healthy at first, then with defects that `--doctor-fix` can all repair."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count, product
from pathlib import Path

import numpy as np
from sqlalchemy import Table, UniqueConstraint, create_engine
from sqlmodel import Session, select

from pytest_panic_doctor.demo.defects import plant
from pytest_panic_doctor.demo.story import captions, image, vector
from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.store import models
from pytest_panic_doctor.topology.engine import Engine, compute, pick
from pytest_panic_doctor.topology.payload import encode

DATABASE = "trajectory_data.sqlite"
DEFECTS = "demo-defects.json"
MARK = ".made-by-pytest-panic-doctor"
"""A file that tells a folder of the demo's from a stranger's."""

BEGUN = datetime(2025, 8, 12, 9, 30, 0, 123456)
TEXT_MODELS = ("Nomic", "JinaClip")
IMAGE_MODEL = "NomicVision"
EXPERIMENTS = (
    ([["FluxDev", "Moondream"]], [-1], ["a red apple", "a penguin by a campfire"], 60),
    ([["FluxSchnell", "BLIP2"], ["SDXLTurbo", "Moondream"]], [-1], ["a stone bridge", "yeah"], 40),
)


class DemoRefused(DoctorError):
    """The demo will not touch what it did not make."""


@dataclass
class Builder:
    """Makes rows with ids and times that depend on nothing but their order."""

    session: Session
    engine: Engine

    def __post_init__(self) -> None:
        """Begin to count."""
        self.numbers = count()

    def new(self) -> str:
        """The next id: a UUIDv7 as the research tool makes them, in time order."""
        return f"06b051{next(self.numbers):06x}7000800000000000{0:04x}"

    def span(self, seconds: int) -> dict[str, datetime]:
        """A start and an end, `seconds` after the beginning."""
        started = BEGUN + timedelta(seconds=seconds)
        return {"started_at": started, "completed_at": started + timedelta(seconds=0.8)}

    def experiment(self, networks: list[list[str]], seeds: list[int], prompts: list[str], length: int) -> None:
        """One experiment with all its runs."""
        config = models.ExperimentConfig(
            id=self.new(),
            networks=networks,
            seeds=seeds,
            prompts=prompts,
            embedding_models=[*TEXT_MODELS, IMAGE_MODEL],
            max_length=length,
            **self.span(0),
        )
        self.session.add(config)
        for network, seed, prompt in product(networks, seeds, prompts):
            run = models.Run(
                id=self.new(),
                network=network,
                seed=seed,
                max_length=length,
                initial_prompt=prompt,
                experiment_id=config.id,
            )
            self.session.add(run)
            self.run(run)

    def run(self, run: models.Run) -> None:
        """One run: its invocations, their embeddings and its diagrams."""
        said = list(captions(run.initial_prompt, len(run.network[0]), run.max_length // 2))
        before: str | None = None
        made: list[models.Invocation] = []
        for k in range(run.max_length):
            is_text = k % 2 == 1
            made.append(
                models.Invocation(
                    id=self.new(),
                    model=run.network[k % len(run.network)],
                    type="TEXT" if is_text else "IMAGE",
                    seed=run.seed,
                    run_id=run.id,
                    sequence_number=k,
                    input_invocation_id=before,
                    output_text=said[k // 2] if is_text else None,
                    output_image_data=None if is_text else image(said[k // 2], k),
                    **self.span(k),
                )
            )
            before = made[-1].id
        self.session.add_all(made)
        for model in (*TEXT_MODELS, IMAGE_MODEL):
            self.embed(run, [each for each in made if (each.type == "IMAGE") == (model == IMAGE_MODEL)], said, model)

    def embed(self, run: models.Run, outputs: list[models.Invocation], said: list[str], model: str) -> None:
        """The embeddings of one run by one model, and their diagram."""
        points = np.stack([vector(caption, model, batch=place // 8) for place, caption in enumerate(said)])
        for output, point in zip(outputs, points, strict=True):
            embedding = models.Embedding(
                id=self.new(), invocation_id=output.id, embedding_model=model, vector=point.tobytes(), **self.span(200)
            )
            self.session.add(embedding)
        diagram, _ = compute(points, engine=self.engine)
        self.session.add(
            models.PersistenceDiagram(
                id=self.new(), run_id=run.id, embedding_model=model, diagram_data=encode(diagram), **self.span(300)
            )
        )

    def clusters(self) -> None:
        """A clustering of some of the first run's embeddings: one outlier, and the rest around one medoid."""
        result = models.ClusteringResult(
            id=self.new(),
            created_at=BEGUN,
            embedding_model="Nomic",
            algorithm="hdbscan",
            parameters={"min_cluster_size": 5},
            **self.span(400),
        )
        self.session.add(result)
        self.session.flush()
        chosen = select(models.Embedding.id).where(models.Embedding.embedding_model == "Nomic").limit(20)
        found = self.session.exec(chosen).all()
        for place, embedding in enumerate(found):
            self.session.add(
                models.EmbeddingCluster(
                    id=self.new(),
                    embedding_id=embedding,
                    clustering_result_id=result.id,
                    medoid_embedding_id=found[1] if place else None,
                )
            )


def build(folder: Path) -> Path:
    """Build the demo in `folder` and return the database's path; one that was built before is replaced.

    Raises `DemoRefused` where the folder, or the database in it, is somebody else's.
    """
    mark = folder / MARK
    if folder.exists() and not mark.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DemoRefused(f"{folder} is there and was not made by the demo: move it away, or call from another folder")
    if folder.exists():
        for path in own_files(folder):
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text("made by pytest --doctor-demo; may be deleted\n")
    path = folder / DATABASE
    engine = create_engine(f"sqlite:///{path}")
    with older_schema():
        models.Base.metadata.create_all(engine)
    with Session(engine) as session:
        builder = Builder(session, pick())
        for experiment in EXPERIMENTS:
            builder.experiment(*experiment)
        builder.clusters()
        session.commit()
    engine.dispose()
    planted = plant(path)
    (folder / DEFECTS).write_text(json.dumps([each.as_dict() for each in planted], indent=1) + "\n")
    return path


def own_files(folder: Path) -> Iterator[Path]:
    """What an earlier demo, and the doctor on it, have left."""
    stem = DATABASE.removesuffix(".sqlite")
    yield from (path for path in folder.glob(f"{stem}.*") if path.is_file())
    yield from (path for path in (folder / DEFECTS,) if path.exists())


class older_schema:  # noqa: N801 - reads as a phrase
    """Leaves out the UNIQUE constraint that files of an older research tool lack, so that duplicates can be shown."""

    def __enter__(self) -> None:
        """Take it away."""
        self.table: Table = models.Base.metadata.tables["embedding"]
        self.taken = next(each for each in self.table.constraints if isinstance(each, UniqueConstraint))
        self.table.constraints.discard(self.taken)

    def __exit__(self, *_: object) -> None:
        """Put it back."""
        self.table.append_constraint(self.taken)


__all__ = ["DemoRefused", "build"]
