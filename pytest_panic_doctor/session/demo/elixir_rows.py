"""The healthy demo of the Elixir generation: two finished experiments, and two that are not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count, product

import numpy as np
from numpy.typing import NDArray
from sqlmodel import Session

from pytest_panic_doctor.database.elixir_generation import stamp as ecto_time
from pytest_panic_doctor.database.elixir_payload import encode as encode_diagram
from pytest_panic_doctor.database.elixir_payload import encode_lyapunov
from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.session.demo import elixir_models as tables
from pytest_panic_doctor.session.demo.story import avif, captions, cloud
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


@dataclass
class ElixirBuilder:
    """Adds rows to a session; ids and times depend on the order only, captions also on `seed`."""

    session: Session
    engine: Engine
    seed: int
    experiments: Sequence[Walks] = EXPERIMENTS
    least: int = LEAST_MEMBERS
    numbers: count[int] = field(default_factory=count)
    seconds: float = 0.0
    embedded: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    """Id, caption and run of the embeddings by each model."""

    def build(self) -> None:
        """Add all rows."""
        for walks in self.experiments:
            self.experiment(walks)
        for model in (TEXT_MODEL, VISION_MODEL):
            self.clustering(model)

    def row(self) -> dict[str, str]:
        """Return the id of a new row, and the time at which it was written."""
        number = next(self.numbers)
        millis = int(BEGUN_AT.timestamp()) * 1000 + number
        now = self.now()
        return {
            "id": dashed(f"{millis << 80 | 7 << 76 | 2 << 62:032x}"),
            "inserted_at": now,
            "updated_at": now,
        }

    def now(self, later: float = 0.0) -> str:
        """Return the time, after `later` more seconds."""
        self.seconds += later
        return ecto_time(BEGUN_AT + timedelta(seconds=self.seconds))

    def experiment(self, walks: Walks) -> None:
        """Add one experiment with all its runs, in the order in which the research tool writes them."""
        experiment = tables.Experiment(
            networks=compact([*walks.networks, *walks.retired]),
            num_runs=walks.runs,
            prompts=compact(walks.prompts),
            embedding_models=compact(walks.models),
            max_length=walks.max_length,
            started_at=self.now(3),
            **self.row(),
        )
        self.session.add(experiment)
        for network in walks.networks:
            runs = [
                tables.Run(
                    experiment_id=experiment.id,
                    network=compact(network),
                    run_number=number,
                    max_length=walks.max_length,
                    initial_prompt=prompt,
                    **self.row(),
                )
                for prompt, number in product(walks.prompts, range(walks.runs))
            ]
            self.session.add_all(runs)
            self.network(experiment, network, runs, walks)
        if walks.made is None:
            experiment.completed_at = experiment.updated_at = self.now(1)

    def network(
        self, experiment: tables.Experiment, network: tuple[str, ...], runs: list[tables.Run], walks: Walks
    ) -> None:
        """Add the invocations of a network, and what a finished experiment has of them."""
        texts = {
            run.id: captions(run.initial_prompt, network, -1, walks.max_length // 2, self.seed, f"run {run.run_number}")
            for run in runs
        }
        made = self.invocations(network, runs, texts, walks.max_length if walks.made is None else walks.made)
        if walks.made is not None:
            return
        for model in (TEXT_MODEL, VISION_MODEL):
            clouds: dict[str, list[NDArray[np.float32]]] = {}
            for run in runs:
                outputs = made[run.id][0 if model == VISION_MODEL else 1 :: 2]
                clouds.setdefault(run.initial_prompt, []).append(self.embed(run, outputs, texts[run.id], model))
            for prompt, group in clouds.items():
                self.exponent(experiment, compact(network), prompt, model, group)

    def invocations(
        self, network: tuple[str, ...], runs: list[tables.Run], texts: dict[str, list[str]], length: int
    ) -> dict[str, list[str]]:
        """Add the invocations of all runs of a network, one step of all runs at a time.

        Returns:
            The ids of each run's invocations.
        """
        made: dict[str, list[str]] = {run.id: [] for run in runs}
        for step in range(length):
            is_text = step % 2 == 1
            times = {"started_at": self.now(0.01), "completed_at": self.now(1 if is_text else 7)}
            for run in runs:
                caption, before = texts[run.id][step // 2], made[run.id]
                invocation = tables.Invocation(
                    run_id=run.id,
                    input_invocation_id=before[-1] if before else None,
                    sequence_number=step,
                    type="text" if is_text else "image",
                    model=network[step % len(network)],
                    output_text=caption if is_text else None,
                    output_image=None if is_text else avif(caption, step),
                    **times,
                    **self.row(),
                )
                self.session.add(invocation)
                before.append(invocation.id)
        return made

    def embed(self, run: tables.Run, outputs: list[str], texts: list[str], model: str) -> NDArray[np.float32]:
        """Add the embeddings of one run by one model, and their diagram; returns the point cloud."""
        points = cloud(texts, model, VECTOR_WIDTH)
        times = {"started_at": self.now(0.02), "completed_at": self.now(0.5)}
        for output, caption, point in zip(outputs, texts, points, strict=True):
            embedding = tables.Embedding(
                invocation_id=output, embedding_model=model, vector=point.tobytes(), **times, **self.row()
            )
            self.session.add(embedding)
            self.embedded.setdefault(model, []).append((embedding.id, caption, run.id))
        diagram, _ = compute(points, engine=self.engine)
        self.session.add(
            tables.PersistenceDiagram(
                run_id=run.id,
                embedding_model=model,
                diagram_data=encode_diagram(diagram),
                started_at=self.now(0.01),
                completed_at=self.now(0.1),
                **self.row(),
            )
        )
        return points

    def exponent(
        self,
        experiment: tables.Experiment,
        network: str,
        prompt: str,
        model: str,
        clouds: list[NDArray[np.float32]],
    ) -> None:
        """Add the Lyapunov result of the runs of one network and prompt."""
        self.session.add(
            tables.LyapunovResult(
                experiment_id=experiment.id,
                network=network,
                prompt=prompt,
                embedding_model=model,
                lyapunov_data=encode_lyapunov(lyapunov(clouds)),
                started_at=self.now(0.01),
                completed_at=self.now(0.1),
                **self.row(),
            )
        )

    def clustering(self, model: str) -> None:
        """Add a clustering in two layers: a cluster for each frequent caption, and one for those of a run."""
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
            result = tables.ClusteringResult(
                embedding_model=model,
                algorithm="evoc",
                parameters=compact(parameters),
                layer=layer,
                **times,
                **self.row(),
            )
            self.session.add(result)
            medoids: dict[str, str] = {}
            for (embedding, caption, run), member in zip(embedded, frequent, strict=True):
                medoid = medoids.setdefault(run if layer else caption, embedding) if member else None
                self.session.add(
                    tables.EmbeddingCluster(
                        embedding_id=embedding,
                        clustering_result_id=result.id,
                        medoid_embedding_id=medoid,
                        **self.row(),
                    )
                )
