"""Files of attacks on a run, made up, as an attack would have published them."""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from smoothcert.manifests.studies import PatchAttack
from smoothcert.workers.runs.layout import STUDIES
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run
from smoothcert.workers.studies import patch_attack
from smoothcert.workers.studies.study import STUDY_JSON, PartRecord, StoredStudy, StudyRecord
from smoothcert.workers.studies.worker import COLUMNS

SCHEMA = pa.schema([*COLUMNS, *patch_attack.COLUMNS])


def attack(
    run: Run,
    fell: Mapping[str, bool | None],
    patch: tuple[int, int] = (2, 2),
    *,
    finished: bool = True,
    seed: int = 0,
    slack: Mapping[str, int] | None = None,
) -> StoredStudy:
    """An attack on images of a run.

    Args:
        run: the run.
        fell: by the keys of the images; None: it could not be attacked.
        patch: height and width in pixels.
        finished: whether it has a _SUCCESS.
        seed: two attacks with different seeds are two studies.
        slack: by the keys of images, -4 for the others.
    """
    settings = PatchAttack(height=patch[0], width=patch[1])
    choice = {"limit": len(fell), "seed": seed, "only": "all"}
    rows, parts = list[list[dict[str, Any]]](), list[PartRecord]()
    columns = ["key", "shard", "index", "sha256", "label", "prediction"]
    for task, file in zip(run.tasks, read_published(run, columns), strict=True):
        chosen = [row for row in file.rows.to_pylist() if row["key"] in fell]
        if chosen:
            parts.append(PartRecord(shard=task.index, images=tuple(row["index"] for row in chosen)))
            rows.append([_row(row, fell, patch, slack or {}, run.job.model.classes) for row in chosen])
    study_id = settings.id_for(run.run_id, choice)
    record = StudyRecord(
        study_id=study_id,
        run_id=run.run_id,
        kind=settings.kind,
        settings=json.loads(settings.model_dump_json()),
        choice=choice,
        candidates=100,
        created="2026-11-27T00:00:00+00:00",
        parts=tuple(parts),
    )
    run.store.publish(run.url, f"{STUDIES}/{study_id}/{STUDY_JSON}", record.encode())
    study = StoredStudy(run, record)
    for task, part in zip(study.tasks, rows, strict=True):
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(part, schema=SCHEMA), out, write_page_checksum=True)
        run.store.publish(run.url, task.file_name, out.getvalue())
    if finished:
        study.finish()
    return study


def _row(
    row: dict[str, Any],
    fell: Mapping[str, bool | None],
    patch: tuple[int, int],
    slack: Mapping[str, int],
    classes: int,
) -> dict[str, Any]:
    """A red patch at 1, 2 that was found at the third place, or none."""
    has_fallen = fell[row["key"]]
    if has_fallen is None:
        return row | {"error": "decode_error: it is no image", "prediction": None}
    made = row | {"slack": slack.get(row["key"], -4), "fell": has_fallen, "places": 3, "forwards": 60, "unconfirmed": 0}
    if has_fallen:
        made |= {
            "becomes": (row["prediction"] + 1) % classes,
            "top": 1,
            "left": 2,
            "place_slack": -3,
            "attack": "apgd-ce",
        }
        made["patch"] = red_patch(patch)
    return made


def red_patch(patch: tuple[int, int]) -> bytes:
    """The PNG file."""
    pixels = np.zeros((*patch, 3), np.uint8)
    pixels[..., 0] = 255
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
