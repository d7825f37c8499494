"""Rank 0 of a group of one rank, as a thread."""

import threading
from collections.abc import Callable
from pathlib import Path

from glm_worker.assignment import RankAssignment
from glm_worker.engine.lead import LeadRank
from glm_worker.engine.rank import rank_of
from glm_worker.heartbeat import RankSlot, create_slots
from glm_worker.settings import WorkerSettings

GENERATION = "offline-1"


class RankThread(threading.Thread):
    """Loads the model, then turns until it is told to stop. Most of its time it has let go of the interpreter."""

    def __init__(
        self, settings: WorkerSettings, folder: Path, endpoint: str, on_end: Callable[[BaseException | None], object]
    ) -> None:
        """folder: where its files may lie. on_end: called in this thread, with what it failed of."""
        super().__init__(name="glm-rank-0", daemon=True)
        self._settings = settings
        self._on_end = on_end
        self._stops = threading.Event()
        slots = folder / "slots"
        create_slots(slots, 1)
        self._slot = RankSlot.open(slots, 0)
        self._assignment = RankAssignment(
            rank=0,
            local_rank=0,
            world_size=1,
            generation=GENERATION,
            secret="",
            meeting_dir=str(folder),
            leader_host="",
            store_port=0,
            channel_port=0,
            server_endpoint=endpoint,
            slots_path=str(slots),
            num_local_slots=1,
        )

    def run(self) -> None:
        failure: BaseException | None = None
        self._slot.begin()
        try:
            rank = rank_of(self._settings, self._assignment, self._slot)
            assert isinstance(rank, LeadRank), "rank 0 leads"
            try:
                while not self._stops.is_set():
                    rank.turn()
            finally:
                rank.close()
        except BaseException as error:  # noqa: BLE001 - whatever it is, who waits for an answer is told
            failure = error
        self._on_end(failure)

    def stop(self) -> None:
        """Have it end after the turn that it is at, and wait for that."""
        self._stops.set()
        self.join()
        self._slot.close()
