"""All faults by name."""

from __future__ import annotations

from collections.abc import Callable

from unigrf_dist.chaos import disks, faults, links
from unigrf_dist.chaos.workshop import Outcome, Workshop

FAULTS: dict[str, Callable[[Workshop], Outcome]] = {
    "kill-rank": faults.kill_rank,
    "kill-all": faults.kill_all,
    "kill-while-saving": faults.kill_while_saving,
    "kill-launcher": faults.kill_launcher,
    "change-ranks": faults.change_ranks,
    "stop-rank": faults.stop_rank,
    "cut-link": links.cut_link,
    "interrupt": faults.interrupt,
    "interrupt-twice": faults.interrupt_twice,
    "unwritable": faults.unwritable_folder,
    "full-disk": disks.full_disk,
    "read-only": disks.read_only,
    "elastic": faults.restart_elastic,
}
