"""The tables of the Python generation as SQLModel classes, as the research tool declares them."""

from __future__ import annotations

from datetime import datetime

from pydantic import NaiveDatetime
from sqlalchemy import CHAR, JSON, Column, DateTime, ForeignKey, LargeBinary, MetaData, UniqueConstraint
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class Base(SQLModel, registry=registry(metadata=MetaData())):
    """The base of all tables."""


def key() -> Column[str]:
    """A primary key: a UUIDv7 as 32 hex digits."""
    return Column("id", CHAR(32), primary_key=True, nullable=False)


def reference(name: str, target: str, *, nullable: bool = False) -> Column[str]:
    """A declared, unenforced and indexed reference."""
    return Column(name, CHAR(32), ForeignKey(target), nullable=nullable, index=True)


def moment(name: str, *, nullable: bool = False) -> Column[datetime]:
    """A time without a zone."""
    return Column(name, DateTime, nullable=nullable)


class ExperimentConfig(Base, table=True):
    """An experiment: the product networks x seeds x prompts."""

    __tablename__ = "experimentconfig"

    id: str = Field(sa_column=key())
    networks: list[list[str]] = Field(sa_column=Column("networks", JSON, nullable=False))
    seeds: list[int] = Field(sa_column=Column("seeds", JSON, nullable=False))
    prompts: list[str] = Field(sa_column=Column("prompts", JSON, nullable=False))
    embedding_models: list[str] = Field(sa_column=Column("embedding_models", JSON, nullable=False))
    max_length: int
    started_at: NaiveDatetime | None = Field(default=None, sa_column=moment("started_at", nullable=True))
    completed_at: NaiveDatetime | None = Field(default=None, sa_column=moment("completed_at", nullable=True))


class Run(Base, table=True):
    """One walk through a network."""

    __tablename__ = "run"

    id: str = Field(sa_column=key())
    network: list[str] = Field(sa_column=Column("network", JSON, nullable=False))
    seed: int
    max_length: int
    initial_prompt: str
    experiment_id: str = Field(sa_column=reference("experiment_id", "experimentconfig.id"))


class Invocation(Base, table=True):
    """One step of a run."""

    __tablename__ = "invocation"

    id: str = Field(sa_column=key())
    started_at: NaiveDatetime = Field(sa_column=moment("started_at"))
    completed_at: NaiveDatetime | None = Field(default=None, sa_column=moment("completed_at", nullable=True))
    model: str
    type: str = Field(max_length=5)
    seed: int
    run_id: str = Field(sa_column=reference("run_id", "run.id"))
    sequence_number: int
    input_invocation_id: str | None = Field(
        default=None, sa_column=reference("input_invocation_id", "invocation.id", nullable=True)
    )
    output_text: str | None = None
    output_image_data: bytes | None = Field(default=None, sa_column=Column("output_image_data", LargeBinary))


class Embedding(Base, table=True):
    """The vector of one output by one embedding model."""

    __tablename__ = "embedding"
    __table_args__ = (UniqueConstraint("invocation_id", "embedding_model", name="unique_invocation_embedding_model"),)

    id: str = Field(sa_column=key())
    started_at: NaiveDatetime = Field(sa_column=moment("started_at"))
    completed_at: NaiveDatetime | None = Field(default=None, sa_column=moment("completed_at", nullable=True))
    invocation_id: str = Field(sa_column=reference("invocation_id", "invocation.id"))
    embedding_model: str
    vector: bytes | None = Field(default=None, sa_column=Column("vector", LargeBinary))


class PersistenceDiagram(Base, table=True):
    """The persistence diagram of one run's cloud by one embedding model."""

    __tablename__ = "persistencediagram"

    id: str = Field(sa_column=key())
    started_at: NaiveDatetime = Field(sa_column=moment("started_at"))
    completed_at: NaiveDatetime | None = Field(default=None, sa_column=moment("completed_at", nullable=True))
    diagram_data: bytes | None = Field(default=None, sa_column=Column("diagram_data", LargeBinary))
    run_id: str = Field(sa_column=reference("run_id", "run.id"))
    embedding_model: str


class ClusteringResult(Base, table=True):
    """One clustering of the embeddings of one model."""

    __tablename__ = "clusteringresult"

    id: str = Field(sa_column=key())
    created_at: NaiveDatetime = Field(sa_column=moment("created_at"))
    started_at: NaiveDatetime = Field(sa_column=moment("started_at"))
    completed_at: NaiveDatetime | None = Field(default=None, sa_column=moment("completed_at", nullable=True))
    embedding_model: str
    algorithm: str
    parameters: dict[str, object] = Field(sa_column=Column("parameters", JSON, nullable=False))


class EmbeddingCluster(Base, table=True):
    """One embedding's cluster: its medoid, NULL for an outlier."""

    __tablename__ = "embeddingcluster"
    __table_args__ = (UniqueConstraint("embedding_id", "clustering_result_id", name="unique_embedding_clustering"),)

    id: str = Field(sa_column=key())
    embedding_id: str = Field(sa_column=reference("embedding_id", "embedding.id"))
    clustering_result_id: str = Field(sa_column=reference("clustering_result_id", "clusteringresult.id"))
    medoid_embedding_id: str | None = Field(
        default=None, sa_column=reference("medoid_embedding_id", "embedding.id", nullable=True)
    )
