"""The healthy demo: experiments, runs, invocations, embeddings, diagrams and a clustering."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count, product

from sqlmodel import Session

from pytest_panic_doctor.session.demo import models
from pytest_panic_doctor.session.demo.story import captions, cloud, image
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
    """Adds rows to a session; ids and times depend on the order only, captions also on `seed`."""

    session: Session
    engine: Engine
    seed: int
    numbers: count[int] = field(default_factory=count)
    said: dict[str, list[str]] = field(default_factory=dict)

    def build(self) -> None:
        """Add all rows."""
        for plan in PLANS:
            self.experiment(plan)
        self.clustering()

    def new(self) -> str:
        """Return the next id, in order of time, like the UUIDv7 of the research tool."""
        return f"06b051{next(self.numbers):06x}7000800000000000{0:04x}"

    def span(self, begin: float, lasting: float = 0.8) -> dict[str, datetime]:
        """Return a start and an end.

        Args:
            begin: Seconds after the start of the demo.
            lasting: Seconds between start and end.
        """
        started = BEGUN + timedelta(seconds=begin)
        return {"started_at": started, "completed_at": started + timedelta(seconds=lasting)}

    def experiment(self, plan: Plan) -> None:
        """Add one experiment with all its runs."""
        config = models.ExperimentConfig(
            id=self.new(),
            networks=[list(network) for network in plan.networks],
            seeds=list(plan.seeds),
            prompts=list(plan.prompts),
            embedding_models=list(EMBEDDING_MODELS),
            max_length=plan.max_length,
            **self.span(0, lasting=500),
        )
        self.session.add(config)
        for network, seed, prompt in product(plan.networks, plan.seeds, plan.prompts):
            run = models.Run(
                id=self.new(),
                network=list(network),
                seed=seed,
                max_length=plan.max_length,
                initial_prompt=prompt,
                experiment_id=config.id,
            )
            self.session.add(run)
            self.run(run)

    def run(self, run: models.Run) -> None:
        """Add one run: images and captions in turn, their embeddings and diagrams."""
        texts = captions(run.initial_prompt, run.network, run.seed, run.max_length // 2, self.seed)
        before: str | None = None
        made: list[models.Invocation] = []
        for k in range(2 * len(texts)):
            is_text = k % 2 == 1
            caption = texts[k // 2]
            made.append(
                models.Invocation(
                    id=self.new(),
                    model=run.network[k % len(run.network)],
                    type="TEXT" if is_text else "IMAGE",
                    seed=run.seed,
                    run_id=run.id,
                    sequence_number=k,
                    input_invocation_id=before,
                    output_text=caption if is_text else None,
                    output_image_data=None if is_text else image(caption, k),
                    **self.span(k),
                )
            )
            before = made[-1].id
        self.session.add_all(made)
        for model in EMBEDDING_MODELS:
            self.embed(run, made[0 if model == IMAGE_MODEL else 1 :: 2], texts, model)

    def embed(self, run: models.Run, outputs: list[models.Invocation], texts: list[str], model: str) -> None:
        """Add the embeddings of one run by one model, and their diagram."""
        points = cloud(texts, model)
        for output, caption, point in zip(outputs, texts, points, strict=True):
            embedding = models.Embedding(
                id=self.new(), invocation_id=output.id, embedding_model=model, vector=point.tobytes(), **self.span(200)
            )
            self.session.add(embedding)
            if model == CLUSTERED:
                self.said.setdefault(caption, []).append(embedding.id)
        diagram, _ = compute(points, engine=self.engine)
        self.session.add(
            models.PersistenceDiagram(
                id=self.new(), run_id=run.id, embedding_model=model, diagram_data=encode(diagram), **self.span(300)
            )
        )

    def clustering(self) -> None:
        """Add one clustering: a repeated caption is a cluster around its first embedding, any other an outlier."""
        result = models.ClusteringResult(
            id=self.new(),
            created_at=BEGUN + timedelta(seconds=400),
            embedding_model=CLUSTERED,
            algorithm="hdbscan",
            parameters={"min_cluster_size": 2},
            **self.span(400),
        )
        self.session.add(result)
        for together in self.said.values():
            for embedding in together:
                self.session.add(
                    models.EmbeddingCluster(
                        id=self.new(),
                        embedding_id=embedding,
                        clustering_result_id=result.id,
                        medoid_embedding_id=together[0] if len(together) > 1 else None,
                    )
                )
