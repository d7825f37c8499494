"""The sharded expert-parallel inference worker for GLM-4.5-class models."""
