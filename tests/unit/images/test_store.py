"""Images on disk: whole or not there."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from images.store import (
    BuiltImage,
    ImageName,
    build_directory,
    built_image,
    file_sha256,
    publish,
    recipe_hash,
)


def publish_restic(output: Path, content: bytes) -> BuiltImage:
    with build_directory(ImageName.RESTIC, output) as directory:
        artifacts = directory / "artifacts"
        artifacts.mkdir()
        (artifacts / "restic").write_bytes(content)
        image = BuiltImage(
            name=ImageName.RESTIC,
            directory=output / "restic",
            recipe_hash="abc",
            built_at=datetime(2026, 11, 24, tzinfo=UTC),
            seconds=4.5,
            mirror="http://m.example/debian",
            security_mirror="http://s.example",
            versions={"restic": "0.18.0"},
            sha256={"restic": file_sha256(artifacts / "restic")},
        )
        publish(image, artifacts)
    return image


def interrupted_build(output: Path) -> None:
    with build_directory(ImageName.RESTIC, output) as directory:
        (directory / "half").write_text("half")
        raise KeyboardInterrupt


def test_a_published_image_is_found_as_it_was(tmp_path: Path) -> None:
    image = publish_restic(tmp_path, b"program")
    assert built_image(ImageName.RESTIC, tmp_path) == image
    assert image.path("restic").read_bytes() == b"program"


def test_a_new_build_replaces_the_old_and_leaves_nothing_else(tmp_path: Path) -> None:
    publish_restic(tmp_path, b"old")
    image = publish_restic(tmp_path, b"new")
    assert image.path("restic").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["restic"]


def test_an_image_that_lost_a_file_or_its_record_is_not_there(tmp_path: Path) -> None:
    image = publish_restic(tmp_path, b"program")
    image.path("restic").unlink()
    assert built_image(ImageName.RESTIC, tmp_path) is None
    image = publish_restic(tmp_path, b"program")
    (image.directory / "image.json").write_text("{}")
    assert built_image(ImageName.RESTIC, tmp_path) is None


def test_an_interrupted_build_leaves_the_earlier_image(tmp_path: Path) -> None:
    image = publish_restic(tmp_path, b"good")
    with pytest.raises(KeyboardInterrupt):
        interrupted_build(tmp_path)
    assert built_image(ImageName.RESTIC, tmp_path) == image
    assert [path.name for path in tmp_path.iterdir()] == ["restic"]


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".restic.partial-dead" / "work").mkdir(parents=True)
    publish_restic(tmp_path, b"program")
    assert [path.name for path in tmp_path.iterdir()] == ["restic"]


def test_the_recipe_hash_knows_content_names_modes_and_settings(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    script = recipe / "script"
    script.write_text("one")
    seen = {recipe_hash([recipe], {}), recipe_hash([recipe], {"name": "x"})}
    script.write_text("two")
    seen.add(recipe_hash([recipe], {}))
    script.chmod(0o755)
    seen.add(recipe_hash([recipe], {}))
    script.rename(recipe / "other")
    seen.add(recipe_hash([recipe], {}))
    assert len(seen) == 5
    assert recipe_hash([recipe], {}) in seen
