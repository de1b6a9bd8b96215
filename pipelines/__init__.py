"""The pipeline around the method: whole clips, streams and interactive sessions, all one `Session` underneath."""

from pipelines.pipeline_ardrag import ARDragPipeline
from pipelines.pipeline_output import ARDragPipelineOutput
from pipelines.session import Session


__all__ = ["ARDragPipeline", "ARDragPipelineOutput", "Session"]
