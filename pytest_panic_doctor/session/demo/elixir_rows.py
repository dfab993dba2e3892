"""Writes the healthy rows of the Elixir generation's demo: two finished experiments, and two that are not."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count, product

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.database.elixir_generation import stamp as ecto_time
from pytest_panic_doctor.database.elixir_payload import encode as encode_diagram
from pytest_panic_doctor.database.elixir_payload import encode_lyapunov
from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.session.demo.story import avif, captions, cloud
from pytest_panic_doctor.session.demo.tables import insert
from pytest_panic_doctor.topology.engines import Engine, compute
from pytest_panic_doctor.topology.lyapunov import lyapunov

BEGUN_AT = datetime(2026, 5, 26, 2, 0, 0, 123456, tzinfo=UTC)
TEXT_MODEL, VISION_MODEL, RETIRED_MODEL = "Qwen3Embed", "NomicVision", "Nomic"
VECTOR_WIDTH = 256
LEAST_MEMBERS = 5
"""The fewest embeddings of a cluster in its finest layer."""

RETIRED_NETWORK = ("SD35Medium", "Phi4Vision")
"""A network whose captioner was retired: its runs were deleted on purpose."""


@dataclass(frozen=True, slots=True)
class Walks:
    """The parameters of one experiment: each network is run `runs` times with each prompt.

    Attributes:
        networks: The networks.
        prompts: The prompts.
        runs: The number of runs of each network and prompt.
        max_length: The number of invocations of a complete run.
        models: The embedding models.
        retired: A network without runs.
        made: The invocations that each run has; None for all of a finished experiment.
    """

    networks: tuple[tuple[str, ...], ...]
    prompts: tuple[str, ...]
    runs: int
    max_length: int
    models: tuple[str, ...] = (TEXT_MODEL, VISION_MODEL)
    retired: tuple[tuple[str, ...], ...] = ()
    made: int | None = None


EXPERIMENTS = (
    Walks((("SD35Medium", "Moondream"),), ("a red apple", "a lighthouse"), 3, 60),
    Walks(
        (("Flux2Klein", "Qwen25VL"), ("ZImageTurbo", "Gemma3n")),
        ("a stone bridge at dawn",),
        2,
        40,
        models=(TEXT_MODEL, VISION_MODEL, RETIRED_MODEL),
        retired=(RETIRED_NETWORK,),
    ),
    Walks((("GLMImage", "Pixtral"),), ("a small boat",), 2, 40, models=(TEXT_MODEL,), made=12),
    Walks((("HunyuanImage", "Florence2"),), ("a white horse",), 2, 40, models=(TEXT_MODEL,), made=9),
)


def compact(value: object) -> str:
    """Write JSON as the research tool does: without spaces, in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Walk:
    """One run: its id, its prompt, its captions, and the ids of its invocations."""

    id: str
    prompt: str
    texts: list[str]
    made: list[str] = field(default_factory=list)


@dataclass
class ElixirBuilder:
    """Writes rows; ids and times depend on the order only, captions also on `seed`."""

    db: sqlite3.Connection
    engine: Engine
    seed: int
    experiments: Sequence[Walks] = EXPERIMENTS
    least: int = LEAST_MEMBERS
    numbers: count[int] = field(default_factory=count)
    seconds: float = 0.0
    embedded: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    """Id, caption and run of the embeddings by each model."""

    def build(self) -> None:
        """Write all rows."""
        for walks in self.experiments:
            self.experiment(walks)
        for model in (TEXT_MODEL, VISION_MODEL):
            self.clustering(model)

    def add(self, table: str, **values: object) -> str:
        """Write a row, with its id and the time at which it is written; returns the id."""
        millis = int(BEGUN_AT.timestamp()) * 1000 + next(self.numbers)
        row, now = dashed(f"{millis << 80 | 7 << 76 | 2 << 62:032x}"), self.now()
        insert(self.db, table, {"id": row, "inserted_at": now, "updated_at": now, **values})
        return row

    def now(self, later: float = 0.0) -> str:
        """Return the time, after `later` more seconds."""
        self.seconds += later
        return ecto_time(BEGUN_AT + timedelta(seconds=self.seconds))

    def experiment(self, walks: Walks) -> None:
        """Write one experiment with all its runs, in the order in which the research tool writes them."""
        experiment = self.add(
            "experiments",
            networks=compact([*walks.networks, *walks.retired]),
            num_runs=walks.runs,
            prompts=compact(walks.prompts),
            embedding_models=compact(walks.models),
            max_length=walks.max_length,
            started_at=self.now(3),
        )
        for network in walks.networks:
            self.network(experiment, network, walks)
        if walks.made is None:
            self.db.execute(
                "UPDATE experiments SET completed_at = :now, updated_at = :now WHERE id = :id",
                {"now": self.now(1), "id": experiment},
            )

    def network(self, experiment: str, network: tuple[str, ...], walks: Walks) -> None:
        """Write the runs of a network, their invocations, and what a finished experiment has of them."""
        runs = []
        for prompt, number in product(walks.prompts, range(walks.runs)):
            run = self.add(
                "runs",
                experiment_id=experiment,
                network=compact(network),
                run_number=number,
                max_length=walks.max_length,
                initial_prompt=prompt,
            )
            texts = captions(prompt, network, -1, walks.max_length // 2, self.seed, f"run {number}")
            runs.append(Walk(run, prompt, texts))
        self.invocations(network, runs, walks.max_length if walks.made is None else walks.made)
        if walks.made is not None:
            return
        for model in (TEXT_MODEL, VISION_MODEL):
            clouds: dict[str, list[NDArray[np.float32]]] = {}
            for each in runs:
                clouds.setdefault(each.prompt, []).append(self.embed(each, model))
            for prompt, group in clouds.items():
                self.add(
                    "lyapunov_results",
                    experiment_id=experiment,
                    network=compact(network),
                    prompt=prompt,
                    embedding_model=model,
                    lyapunov_data=encode_lyapunov(lyapunov(group)),
                    started_at=self.now(0.01),
                    completed_at=self.now(0.1),
                )

    def invocations(self, network: tuple[str, ...], runs: list[Walk], length: int) -> None:
        """Write the invocations of all runs of a network, one step of all runs at a time."""
        for step in range(length):
            is_text = step % 2 == 1
            times = {"started_at": self.now(0.01), "completed_at": self.now(1 if is_text else 7)}
            for run in runs:
                caption = run.texts[step // 2]
                invocation = self.add(
                    "invocations",
                    run_id=run.id,
                    input_invocation_id=run.made[-1] if run.made else None,
                    sequence_number=step,
                    type="text" if is_text else "image",
                    model=network[step % len(network)],
                    output_text=caption if is_text else None,
                    output_image=None if is_text else avif(caption, step),
                    **times,
                )
                run.made.append(invocation)

    def embed(self, run: Walk, model: str) -> NDArray[np.float32]:
        """Write the embeddings of one run by one model, and their diagram; returns the point cloud."""
        points = cloud(run.texts, model, VECTOR_WIDTH)
        times = {"started_at": self.now(0.02), "completed_at": self.now(0.5)}
        outputs = run.made[0 if model == VISION_MODEL else 1 :: 2]
        for output, caption, point in zip(outputs, run.texts, points, strict=True):
            embedding = self.add(
                "embeddings", invocation_id=output, embedding_model=model, vector=point.tobytes(), **times
            )
            self.embedded.setdefault(model, []).append((embedding, caption, run.id))
        diagram, _ = compute(points, engine=self.engine)
        self.add(
            "persistence_diagrams",
            run_id=run.id,
            embedding_model=model,
            diagram_data=encode_diagram(diagram),
            started_at=self.now(0.01),
            completed_at=self.now(0.1),
        )
        return points

    def clustering(self, model: str) -> None:
        """Write a clustering in two layers: a cluster for each frequent caption, and one for those of a run."""
        embedded = self.embedded[model]
        usual = Counter(caption for _, caption, _ in embedded)
        frequent = [usual[caption] >= self.least for _, caption, _ in embedded]
        parameters = {
            "noise_level": 0.5,
            "base_min_cluster_size": self.least,
            "min_samples": self.least,
            "random_state": 42,
            "metric": "euclidean_on_normalised",
            "dimension": VECTOR_WIDTH,
            "n_layers": 2,
            "n_embeddings": len(embedded),
        }
        times = {"started_at": self.now(60), "completed_at": self.now(4)}
        for layer in range(2):
            result = self.add(
                "clustering_results",
                embedding_model=model,
                algorithm="evoc",
                parameters=compact(parameters),
                layer=layer,
                **times,
            )
            medoids: dict[str, str] = {}
            for (embedding, caption, run), member in zip(embedded, frequent, strict=True):
                medoid = medoids.setdefault(run if layer else caption, embedding) if member else None
                self.add(
                    "embedding_clusters",
                    embedding_id=embedding,
                    clustering_result_id=result,
                    medoid_embedding_id=medoid,
                )
