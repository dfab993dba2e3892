"""The tables of the Elixir generation as SQLModel classes; only the demo and the tests use them.

Foreign keys, unique indexes and their names are those of Ecto's migrations; columns are in the order of the file.
"""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import Column, ForeignKey, Index, Integer, LargeBinary, MetaData, Text, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class Base(SQLModel, registry=registry(metadata=MetaData())):
    """The base of all tables."""


def key() -> Column[str]:
    """A primary key: a UUIDv7 with dashes."""
    return Column("id", Text, primary_key=True, nullable=False)


def reference(table: str, name: str, target: str, *, nullable: bool = False) -> Column[str]:
    """A declared and enforced reference, without an index of its own."""
    return Column(name, Text, ForeignKey(f"{target}.id", name=f"{table}_{name}_fkey"), nullable=nullable)


def string(name: str, *, nullable: bool = False) -> Column[str]:
    """A text; times are also texts, in UTC."""
    return Column(name, Text, nullable=nullable)


def number(name: str) -> Column[int]:
    """An integer."""
    return Column(name, Integer, nullable=False)


def unique(table: str, name: str, *columns: str) -> Index:
    """A unique index."""
    return Index(f"{table}_{name}_index", *columns, unique=True)


class Experiment(Base, table=True):
    """An experiment: the product networks x prompts x 0 … num_runs-1."""

    __tablename__ = "experiments"

    updated_at: str = Field(sa_column=string("updated_at"))
    inserted_at: str = Field(sa_column=string("inserted_at"))
    completed_at: str | None = Field(default=None, sa_column=string("completed_at", nullable=True))
    started_at: str | None = Field(default=None, sa_column=string("started_at", nullable=True))
    max_length: int = Field(sa_column=number("max_length"))
    embedding_models: str = Field(sa_column=string("embedding_models"))
    prompts: str = Field(sa_column=string("prompts"))
    id: str = Field(sa_column=key())
    num_runs: int = Field(sa_column=number("num_runs"))
    networks: str = Field(sa_column=string("networks"))


class Run(Base, table=True):
    """One walk through a network."""

    __tablename__ = "runs"
    __table_args__: ClassVar[tuple[Index, ...]] = (
        unique("runs", "unique_experiment_run", "experiment_id", "network", "initial_prompt", "run_number"),
    )

    experiment_id: str = Field(sa_column=reference("runs", "experiment_id", "experiments"))
    updated_at: str = Field(sa_column=string("updated_at"))
    inserted_at: str = Field(sa_column=string("inserted_at"))
    initial_prompt: str = Field(sa_column=string("initial_prompt"))
    max_length: int = Field(sa_column=number("max_length"))
    network: str = Field(sa_column=string("network"))
    id: str = Field(sa_column=key())
    run_number: int = Field(sa_column=number("run_number"))


class Invocation(Base, table=True):
    """One step of a run."""

    __tablename__ = "invocations"
    __table_args__: ClassVar[tuple[Index, ...]] = (
        unique("invocations", "unique_run_sequence", "run_id", "sequence_number"),
    )

    input_invocation_id: str | None = Field(
        default=None, sa_column=reference("invocations", "input_invocation_id", "invocations", nullable=True)
    )
    run_id: str = Field(sa_column=reference("invocations", "run_id", "runs"))
    updated_at: str = Field(sa_column=string("updated_at"))
    inserted_at: str = Field(sa_column=string("inserted_at"))
    completed_at: str | None = Field(default=None, sa_column=string("completed_at", nullable=True))
    started_at: str = Field(sa_column=string("started_at"))
    output_image: bytes | None = Field(default=None, sa_column=Column("output_image", LargeBinary))
    output_text: str | None = Field(default=None, sa_column=string("output_text", nullable=True))
    sequence_number: int = Field(sa_column=number("sequence_number"))
    type: str = Field(sa_column=string("type"))
    model: str = Field(sa_column=string("model"))
    id: str = Field(sa_column=key())


class Embedding(Base, table=True):
    """The vector of one output by one embedding model."""

    __tablename__ = "embeddings"
    __table_args__: ClassVar[tuple[Index, ...]] = (
        unique("embeddings", "unique_invocation_model", "invocation_id", "embedding_model"),
    )

    invocation_id: str = Field(sa_column=reference("embeddings", "invocation_id", "invocations"))
    updated_at: str = Field(sa_column=string("updated_at"))
    inserted_at: str = Field(sa_column=string("inserted_at"))
    completed_at: str | None = Field(default=None, sa_column=string("completed_at", nullable=True))
    started_at: str = Field(sa_column=string("started_at"))
    vector: bytes = Field(sa_column=Column("vector", LargeBinary, nullable=False))
    embedding_model: str = Field(sa_column=string("embedding_model"))
    id: str = Field(sa_column=key())


class PersistenceDiagram(Base, table=True):
    """The persistence diagram of one run's cloud by one embedding model, as an Erlang term."""

    __tablename__ = "persistence_diagrams"
    __table_args__: ClassVar[tuple[Index, ...]] = (
        unique("persistence_diagrams", "unique_run_model", "run_id", "embedding_model"),
    )

    run_id: str = Field(sa_column=reference("persistence_diagrams", "run_id", "runs"))
    updated_at: str = Field(sa_column=string("updated_at"))
    inserted_at: str = Field(sa_column=string("inserted_at"))
    completed_at: str | None = Field(default=None, sa_column=string("completed_at", nullable=True))
    started_at: str = Field(sa_column=string("started_at"))
    diagram_data: bytes | None = Field(default=None, sa_column=Column("diagram_data", LargeBinary))
    embedding_model: str = Field(sa_column=string("embedding_model"))
    id: str = Field(sa_column=key())


class LyapunovResult(Base, table=True):
    """How the runs of one network and prompt part, by one embedding model, as an Erlang term."""

    __tablename__ = "lyapunov_results"
    __table_args__: ClassVar[tuple[Index, ...]] = (
        unique(
            "lyapunov_results",
            "unique_experiment_network_prompt_model",
            *("experiment_id", "network", "prompt", "embedding_model"),
        ),
    )

    experiment_id: str = Field(sa_column=reference("lyapunov_results", "experiment_id", "experiments"))
    updated_at: str = Field(sa_column=string("updated_at"))
    inserted_at: str = Field(sa_column=string("inserted_at"))
    completed_at: str | None = Field(default=None, sa_column=string("completed_at", nullable=True))
    started_at: str = Field(sa_column=string("started_at"))
    lyapunov_data: bytes | None = Field(default=None, sa_column=Column("lyapunov_data", LargeBinary))
    prompt: str = Field(sa_column=string("prompt"))
    network: str = Field(sa_column=string("network"))
    embedding_model: str = Field(sa_column=string("embedding_model"))
    id: str = Field(sa_column=key())


class ClusteringResult(Base, table=True):
    """One layer of a clustering of all embeddings of one model."""

    __tablename__ = "clustering_results"
    __table_args__: ClassVar[tuple[Index, ...]] = (
        unique("clustering_results", "unique_layer", "embedding_model", "algorithm", "layer"),
    )

    updated_at: str = Field(sa_column=string("updated_at"))
    inserted_at: str = Field(sa_column=string("inserted_at"))
    completed_at: str | None = Field(default=None, sa_column=string("completed_at", nullable=True))
    started_at: str = Field(sa_column=string("started_at"))
    parameters: str | None = Field(default=None, sa_column=Column("parameters", Text, server_default=text("('{}')")))
    algorithm: str = Field(sa_column=string("algorithm"))
    embedding_model: str = Field(sa_column=string("embedding_model"))
    id: str = Field(sa_column=key())
    layer: int = Field(sa_column=Column("layer", Integer, server_default=text("0"), nullable=False))


class EmbeddingCluster(Base, table=True):
    """One embedding's cluster in a layer: its medoid, NULL for an outlier."""

    __tablename__ = "embedding_clusters"
    __table_args__: ClassVar[tuple[Index, ...]] = (
        unique("embedding_clusters", "unique_embedding_clustering", "embedding_id", "clustering_result_id"),
    )

    medoid_embedding_id: str | None = Field(
        default=None, sa_column=reference("embedding_clusters", "medoid_embedding_id", "embeddings", nullable=True)
    )
    clustering_result_id: str = Field(
        sa_column=reference("embedding_clusters", "clustering_result_id", "clustering_results")
    )
    embedding_id: str = Field(sa_column=reference("embedding_clusters", "embedding_id", "embeddings"))
    updated_at: str = Field(sa_column=string("updated_at"))
    inserted_at: str = Field(sa_column=string("inserted_at"))
    id: str = Field(sa_column=key())
