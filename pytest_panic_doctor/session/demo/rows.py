"""Writes the healthy rows of the Python generation's demo: experiments, runs, diagrams, a clustering."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count, product

from pytest_panic_doctor.session.demo.story import captions, cloud, image
from pytest_panic_doctor.session.demo.tables import insert
from pytest_panic_doctor.topology.engines import Engine, compute
from pytest_panic_doctor.topology.payload import encode

BEGUN = datetime(2025, 8, 12, 9, 30, 0, 123456)
IMAGE_MODEL = "NomicVision"
EMBEDDING_MODELS = ("Nomic", "JinaClip", IMAGE_MODEL)
CLUSTERED = "Nomic"


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of one experiment: each network is run with each seed and each prompt."""

    networks: tuple[tuple[str, ...], ...]
    seeds: tuple[int, ...]
    prompts: tuple[str, ...]
    max_length: int


PLANS = (
    Plan((("FluxDev", "Moondream"),), (-1, 42), ("a red apple", "a lighthouse"), 60),
    Plan((("FluxSchnell", "BLIP2"), ("SDXLTurbo", "Moondream")), (-1,), ("a stone bridge at dawn",), 40),
)


@dataclass
class Builder:
    """Writes rows; ids and times depend on the order only, captions also on `seed`."""

    db: sqlite3.Connection
    engine: Engine
    seed: int
    numbers: count[int] = field(default_factory=count)
    embedded: dict[str, list[str]] = field(default_factory=dict)

    def build(self) -> None:
        """Write all rows."""
        for plan in PLANS:
            self.experiment(plan)
        self.clustering()

    def add(self, table: str, **values: object) -> str:
        """Write a row; returns its id, the next one in order of time, like the UUIDv7 of the research tool."""
        row = f"06b051{next(self.numbers):06x}7000800000000000{0:04x}"
        insert(self.db, table, {"id": row, **values})
        return row

    def at(self, seconds: float) -> str:
        """Return the time so many seconds after the start of the demo, as the database has it."""
        return (BEGUN + timedelta(seconds=seconds)).isoformat(" ")

    def span(self, begin: float, lasting: float = 0.8) -> dict[str, str]:
        """Return a start and an end.

        Args:
            begin: Seconds after the start of the demo.
            lasting: Seconds between start and end.
        """
        return {"started_at": self.at(begin), "completed_at": self.at(begin + lasting)}

    def experiment(self, plan: Plan) -> None:
        """Write one experiment with all its runs."""
        experiment = self.add(
            "experimentconfig",
            networks=json.dumps(plan.networks),
            seeds=json.dumps(plan.seeds),
            prompts=json.dumps(plan.prompts),
            embedding_models=json.dumps(EMBEDDING_MODELS),
            max_length=plan.max_length,
            **self.span(0, lasting=500),
        )
        for network, seed, prompt in product(plan.networks, plan.seeds, plan.prompts):
            run = self.add(
                "run",
                network=json.dumps(network),
                seed=seed,
                max_length=plan.max_length,
                initial_prompt=prompt,
                experiment_id=experiment,
            )
            self.run(run, network, seed, captions(prompt, network, seed, plan.max_length // 2, self.seed))

    def run(self, run: str, network: Sequence[str], seed: int, texts: list[str]) -> None:
        """Write the rows of one run: images and captions in turn, their embeddings and diagrams."""
        made: list[str] = []
        for k in range(2 * len(texts)):
            is_text = k % 2 == 1
            caption = texts[k // 2]
            made.append(
                self.add(
                    "invocation",
                    model=network[k % len(network)],
                    type="TEXT" if is_text else "IMAGE",
                    seed=seed,
                    run_id=run,
                    sequence_number=k,
                    input_invocation_id=made[-1] if made else None,
                    output_text=caption if is_text else None,
                    output_image_data=None if is_text else image(caption, k),
                    **self.span(k),
                )
            )
        for model in EMBEDDING_MODELS:
            self.embed(run, made[0 if model == IMAGE_MODEL else 1 :: 2], texts, model)

    def embed(self, run: str, outputs: list[str], texts: list[str], model: str) -> None:
        """Write the embeddings of one run by one model, and their diagram."""
        points = cloud(texts, model)
        for output, caption, point in zip(outputs, texts, points, strict=True):
            embedding = self.add(
                "embedding", invocation_id=output, embedding_model=model, vector=point.tobytes(), **self.span(200)
            )
            if model == CLUSTERED:
                self.embedded.setdefault(caption, []).append(embedding)
        diagram, _ = compute(points, engine=self.engine)
        self.add(
            "persistencediagram", run_id=run, embedding_model=model, diagram_data=encode(diagram), **self.span(300)
        )

    def clustering(self) -> None:
        """Write one clustering: a repeated caption is a cluster around its first embedding, any other an outlier."""
        result = self.add(
            "clusteringresult",
            created_at=self.at(400),
            embedding_model=CLUSTERED,
            algorithm="hdbscan",
            parameters=json.dumps({"min_cluster_size": 2}),
            **self.span(400),
        )
        for together in self.embedded.values():
            medoid = together[0] if len(together) > 1 else None
            for embedding in together:
                self.add(
                    "embeddingcluster",
                    embedding_id=embedding,
                    clustering_result_id=result,
                    medoid_embedding_id=medoid,
                )
